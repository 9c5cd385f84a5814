"""MCIBI, reproduced: memory-augmented semantic segmentation as an experiment-tracked pipeline.

Read the packages in the order data flows:
`config` -> `datasets` -> `models` -> `training` -> `evaluation` -> `tracking` -> `reporting`.
Imports point from later packages to earlier ones, never back.
"""
