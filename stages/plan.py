"""Stage `plan`: check every chosen benchmark, print what will run and write it resolved to runs/plan."""

from pipeline.layout import Layout
from pipeline.planning.plan import write_plan
from stages import ROOT, stage

if __name__ == "__main__":
    with stage("plan"):
        print(write_plan(ROOT, Layout(ROOT).plan))
