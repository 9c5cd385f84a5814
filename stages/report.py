"""Stage `report`: write reports/report.md and reports/report.html from the results of the chosen benchmarks."""

from pipeline.layout import Layout
from pipeline.reporting.report import write_report
from stages import ROOT, stage

if __name__ == "__main__":
    with stage("report"):
        write_report(ROOT, Layout(ROOT).report)
        print(f"open {Layout(ROOT).report / 'report.html'}")
