"""MCIBI, reproduced: memory-augmented semantic segmentation as an experiment-tracked pipeline.

Read the packages in this order; imports point from later ones to earlier ones, never back:
`config` -> `datasets` -> `checkpoints` -> `models` -> `evaluation` -> `training` -> `handover` -> `predict` ->
`tracking` -> `reporting`.
Evaluation stands before training because training validates.
"""
