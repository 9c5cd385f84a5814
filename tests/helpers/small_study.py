"""A study that is trained in seconds: three variants of the tiny project of `conftest.py`."""

from __future__ import annotations

import yaml

STUDY = {
    "title": "Does it help?",
    "benchmark": "tiny-fcn",
    "rare_classes": ["one"],
    "sizes": {
        "short": {
            "description": "seconds",
            "set": {
                "schedule": {"epochs": 1, "batch_size": 20},
                "dataset": {"train_fraction": 0.04},
                "inference": {
                    "resize": {"keep_ratio": False, "size": [32, 32]},
                    "ms_flip": {"scales": [1.0], "flip": True},
                },
            },
            "order": [{"groups": ["all"], "seeds": [0]}, {"groups": ["extra"], "seeds": [0]}],
        }
    },
    "variants": {
        "plain": {"group": "all", "title": "FCN"},
        "memory": {"group": "all", "of": "plain", "title": "FCN + memory", "set": {"memory": {}}},
        "random": {"group": "extra", "of": "memory", "title": "random", "set": {"memory": {"content": "random"}}},
    },
    "comparisons": {
        "memory": {"question": "What does the memory add?", "pairs": [["plain", "memory"]], "pooled": True},
        "control": {"question": "Or its parameters?", "pairs": [["plain", "random"]]},
    },
}


def changed(path: str, value: object) -> dict:
    """STUDY with the value at a dotted path replaced."""
    study = yaml.safe_load(yaml.safe_dump(STUDY, sort_keys=False))
    *parents, last = path.split(".")
    inner = study
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return study
