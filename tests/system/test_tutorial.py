"""The tutorial, followed to the letter in a clean clone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from helpers.markdown import blocks
from helpers.project import ROOT
from helpers.repro import ENVIRONMENT


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="needs the environment that `make env` makes")
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(ROOT / ".venv")  # `make env` finds it up to date
    script = ["set -e"]
    for language, title, text in blocks((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")):
        if language == "sh":
            script += text.splitlines()
        else:
            (tmp_path / Path(title).name).write_text(text, encoding="utf-8")
            script.append(f"cp {tmp_path / Path(title).name} {title}")
    shell = shutil.which("bash")
    assert shell is not None
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    identity = {name: value for name, value in ENVIRONMENT.items() if name.startswith("GIT_")}
    subprocess.run([shell, "-c", "\n".join(script)], cwd=clone, env=environment | identity, check=True)
    report = (clone / "reports" / "report.md").read_text(encoding="utf-8")
    assert "shapes" in report
    scores = pd.read_json(clone / "runs" / "evaluate" / "shapes-fcn" / "0" / "metrics.json")
    assert scores["single_scale"]["miou"] > 0.5
