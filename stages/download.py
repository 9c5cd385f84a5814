"""Stage `download`: bring the raw data of every planned dataset to data/raw and record where it came from."""

from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.planned import planned_datasets
from pipeline.layout import Layout
from stages import ROOT, stage

if __name__ == "__main__":
    layout = Layout(ROOT)
    with stage():
        for name, plan in planned_datasets(layout.plan).items():
            download(get_dataset(name), layout.raw(name), plan.source, layout.source(name))
