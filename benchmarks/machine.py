"""Where and with what the numbers were measured."""

from __future__ import annotations

import os
import platform
import sys

import torch

from benchmarks.networks import ROOT
from pipeline.runtime.device import available_cores
from pipeline.runtime.provenance import git, hardware


def describe(device: torch.device, module: str = "benchmarks") -> dict[str, object]:
    """Processor, device, versions, threads, commit, command, and how busy the machine was at the start.

    The variable COMMIT names the commit where a copy without history is measured.
    """
    return {
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
        "commit": os.environ.get("COMMIT") or git(ROOT, "rev-parse", "HEAD") or "unknown",
        "changed_files": len((git(ROOT, "status", "--porcelain") or "").splitlines()),
        "system": platform.platform(),
        "processor": hardware()["cpu"],
        "cores": available_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "onednn_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
    }
