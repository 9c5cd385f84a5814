"""Stage `preprocess`: bring every planned dataset to the uniform prepared form under data/prepared."""

from pipeline.checkpoints.planned import downloaded_weights
from pipeline.datasets import get_dataset
from pipeline.datasets.planned import planned_datasets
from pipeline.datasets.prepare import prepare
from pipeline.datasets.prepared import write_index
from pipeline.layout import Layout
from stages import ROOT, stage

if __name__ == "__main__":
    layout = Layout(ROOT)
    with stage("preprocess"):
        weights = downloaded_weights(layout)
        for name, plan in planned_datasets(layout.plan).items():
            spec = get_dataset(name, plan.images)
            prepare(spec, layout.raw(name), layout.prepared(name))
            for benchmark in plan.benchmarks:
                file = weights.get(benchmark)
                write_index(spec, layout.prepared(name), benchmark, layout.index(benchmark), file and file.sha256)
