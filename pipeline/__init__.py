"""MCIBI, reproduced: memory-augmented semantic segmentation as an experiment-tracked pipeline.

Packages in the order in which data flows; each imports only earlier ones: `files`, `config`, `runtime`, `datasets`,
`checkpoints`, `models`, `results`, `evaluation`, `training`, `export`, `predict`, `tracking`, `reporting`, `planning`.
Training validates, so evaluation comes first.
"""
