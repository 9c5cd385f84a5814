"""What a result depends on besides the configuration: the commit, the machine and the library versions."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

LIBRARIES = (
    *("torch", "torchvision", "timm", "segmentation-models-pytorch", "albumentations", "opencv-python-headless"),
    *("numpy", "scipy", "pandas", "pyarrow", "safetensors", "pydantic", "PyYAML", "scikit-learn", "Pillow", "dvc"),
    "mlflow",
)
# Written by the pipeline while it runs: changes there are results and do not make the code dirty.
_GENERATED = ("dvc.lock", "weights.lock.json", "runs", "reports")


def git_state(root: Path, without: Sequence[str] = ()) -> tuple[str | None, bool]:
    """Commit checked out at `root` and whether tracked or new files differ from it; (None, False) without a commit.

    A repository around the project, which was unpacked in it, is another one: its commit says nothing about this code.
    without: further paths to ignore, because nothing in them can change the result.
    """
    commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit or _surrounding(root):
        return None, False
    changed = git(root, "status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in (*_GENERATED, *without)))
    return commit, bool(changed)


@functools.cache
def loaded_code(root: Path, without: tuple[str, ...] = ()) -> tuple[str | None, bool]:
    """`git_state` at the first call, made before long work: later commits do not change the loaded code.

    Without a commit git's reason and the remedy are printed, once.
    """
    state = git_state(root, without)
    if state[0] is None:
        print(f"no commit will be recorded with the results: {why_no_commit(root)}", file=sys.stderr)
    return state


def why_no_commit(root: Path) -> str:
    """Why git knows no commit of `root`, and what to do about it."""
    if shutil.which("git") is None:
        return "git is not installed; install it"
    if around := _surrounding(root):
        return f"the Git repository {around} is not the project's; run `git init` in the project and commit all files"
    said = _run_git(root, "rev-parse", "--verify", "HEAD").stderr.splitlines()
    reason = next((line.removeprefix("fatal: ") for line in said if line.startswith("fatal: ")), "git says nothing")
    if "dubious ownership" in reason:
        return f"{reason}; if you trust it, run `git config --global --add safe.directory {root}`"
    if "not a git repository" in reason:
        return f"{reason}; clone the project with git, or run `git init` and commit all files"
    return f"{reason}; commit all files"


def hardware() -> dict[str, str | int | None]:
    """This machine: processor, logical cores, GPU (None without one), main memory in bytes, operating system.

    threads: cores that torch uses; kernels: instruction sets that it uses. Others round differently.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "unlimited")
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": f"{torch.backends.cpu.get_cpu_capability()}, oneDNN {limit}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_bytes": psutil.virtual_memory().total,
        "platform": platform.platform(),
    }


def libraries() -> dict[str, str]:
    """Versions of Python, CUDA (when torch was built with it) and the installed ones among `LIBRARIES`."""
    versions = {"python": platform.python_version()}
    if torch.version.cuda is not None:
        versions["cuda"] = torch.version.cuda
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # optional, such as mlflow on a cluster that tracks otherwise
    return versions


def _surrounding(root: Path) -> str | None:
    """Top level of the repository that `root` is in, if the project was only unpacked there and is no part of it."""
    top = git(root, "rev-parse", "--show-toplevel")
    if top is None:
        return None
    project = next((folder for folder in (root, *root.absolute().parents) if (folder / "dvc.yaml").is_file()), root)
    own = Path(top).resolve() == project.resolve()
    return None if own or git(project, "ls-files", "--error-unmatch", "dvc.yaml") else top


def git(root: Path, *arguments: str) -> str | None:
    """Trimmed output of a git command; None when git is missing or refuses (no repository, no commit)."""
    if shutil.which("git") is None:
        return None
    done = _run_git(root, *arguments)
    return done.stdout.strip() if done.returncode == 0 else None


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    english = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, env=english
    )


def _cpu_name() -> str:
    """Marketing name of the processor; the architecture where the system does not say."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()
