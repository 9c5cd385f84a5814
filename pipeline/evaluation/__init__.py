"""Evaluation: `inference` (views, windows, averaging), `metrics` (mIoU), `bootstrap` (intervals), `run` (files)."""
