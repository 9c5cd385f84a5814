"""MCIBI, reproduced: memory-augmented semantic segmentation as an experiment-tracked pipeline.

Packages in the order in which data flows; each imports only earlier ones: `files`, `config`, `runtime`, `datasets`,
`checkpoints`, `models`, `results`, `evaluation`, `training`, `export`, `predict`, `tracking`, `reporting`, `planning`.
Training validates, so evaluation comes first.
"""

import os

SPIN_COUNT = "10000"
# Rounds that OpenMP's threads spin before they sleep, read once, when torch loads. With its own 300,000 a training step
# beside other work can take many times longer, without spinning one on an idle machine takes half as long again
# (docs/performance.md, "Shared machines"). What a user sets is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
