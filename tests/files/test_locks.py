"""One process at a time."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from pipeline.errors import PipelineError
from pipeline.files.locks import alone, claimed, exclusive


def hold(folder, log, seconds):
    with exclusive(folder), log.open("a") as stream:
        stream.write("in\n")
        stream.flush()
        time.sleep(seconds)
        stream.write("out\n")


def test_two_processes_take_turns(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=hold, args=(tmp_path / "raw", tmp_path / "log", 0.2)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "log").read_text().split() == ["in", "out", "in", "out"]


def test_work_that_another_process_does_is_refused_with_that_process(tmp_path):
    lock = tmp_path / "state" / ".run.lock"
    for _ in range(2):
        named = rf"training: process {os.getpid()} on .* does this already; stop it, then run the same command again"
        with alone(lock, "training"), pytest.raises(PipelineError, match=named), alone(lock, "training"):
            pass


def test_a_claim_is_refused_at_once_while_it_is_held(tmp_path):
    for _ in range(2):
        with claimed(tmp_path / "claims" / "run") as mine, claimed(tmp_path / "claims" / "run") as second:
            assert (mine, second) == (True, False)
