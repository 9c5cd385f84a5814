"""Stage `download`: bring raw data and weight files to data/raw and record where they came from.

Later stages use the network for a pretrained tag of timm or smp and for an MLflow server alone.
"""

from pipeline.checkpoints.download import download_weights
from pipeline.checkpoints.planned import planned_weights
from pipeline.datasets import get_dataset
from pipeline.datasets.download import download
from pipeline.datasets.planned import planned_datasets
from pipeline.layout import Layout
from stages import ROOT, stage

if __name__ == "__main__":
    layout = Layout(ROOT)
    with stage("download"):
        download_weights(planned_weights(layout.plan), layout)
        for name, plan in planned_datasets(layout.plan).items():
            download(get_dataset(name, plan.images), layout.raw(name), plan.source, layout.source(name))
