"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.layout import Layout


def test_a_queued_experiment_shares_raw_data_and_states_with_its_repository_and_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    layout = Layout(tmp_path / "copy")
    assert layout.raw("digits") == tmp_path / "repository" / "data" / "raw" / "digits"
    assert layout.state("tiny", "key") == tmp_path / "repository" / "runs" / "state" / "tiny" / "key"
    assert layout.weights_lock.is_relative_to(tmp_path / "repository")
    own = layout.prepared("digits"), layout.source("digits"), layout.train("tiny", 0), layout.training_lock("tiny", 0)
    for path in (*own, layout.plan):
        assert path.is_relative_to(tmp_path / "copy")
