"""Stage `plan`: check every chosen benchmark, print what will run and write it resolved to runs/plan."""

from pipeline.layout import Layout
from pipeline.planning.plan import write_plan
from stages import ROOT, report_user_errors

if __name__ == "__main__":
    with report_user_errors():
        print(write_plan(ROOT, Layout(ROOT).plan))
