"""The trained segmentor as an MLflow model that `mlflow.pytorch.load_model` restores on any machine.

MLflow's default format, an exported graph, fixes the image size. Here the segmentor itself is pickled, and the
package's code is logged with it, so loading needs neither this repository nor a GPU. Only the PyTorch flavour is kept:
MLflow's generic one takes tables, and the UI would show a snippet that cannot work for images.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from pipeline.runtime.provenance import libraries

_PACKAGE = Path(__file__).resolve().parents[1]
_NEEDED_TO_LOAD = ("torch", "torchvision", "timm", "segmentation-models-pytorch", "numpy", "pydantic", "PyYAML")


def log_model(run_id: str, model: torch.nn.Module) -> str:
    """Log `model` (on the CPU, in evaluation mode) as `model` of the active run `run_id`; returns its MLflow id."""
    from mlflow.models import Model

    flavor = SimpleNamespace(__name__="mlflow.pytorch", save_model=_save)
    info = Model.log(artifact_path=None, flavor=flavor, name="model", run_id=run_id, pytorch_model=model)
    return info.model_id


def _save(path: str, mlflow_model: Any, pytorch_model: torch.nn.Module) -> None:
    """Called by `Model.log`: write the model to the folder `path` and describe it in its MLmodel file."""
    import mlflow.pytorch

    versions = libraries()
    # Given, because MLflow would otherwise find the versions by loading the model in another process and asking the
    # package index. Local parts such as +cpu name builds that the index does not have.
    pins = [f"{name}=={versions[name].partition('+')[0]}" for name in (*_NEEDED_TO_LOAD, "mlflow")]
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)  # it warns about pickle, which is intended here
    options = {"serialization_format": "pickle", "code_paths": [str(_PACKAGE)], "pip_requirements": pins}
    mlflow.pytorch.save_model(pytorch_model, path, mlflow_model=mlflow_model, **options)
    del mlflow_model.flavors["python_function"]
    mlflow_model.save(str(Path(path) / "MLmodel"))
