"""Benchmarks and variants resolve to what they were: published rows when they were compared with the authors' files,
CamVid and the variants of its first two studies when their records were made.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from helpers.project import ROOT

from pipeline.config import config_hash, evaluation_hash, load_benchmark
from pipeline.config.load import hashed
from pipeline.config.study import load_plan, load_study

GOLDENS = ROOT / "tests" / "goldens"
BENCHMARKS = json.loads((GOLDENS / "resolved-benchmarks.json").read_text(encoding="utf-8"))
VARIANTS = json.loads((GOLDENS / "resolved-variants.json").read_text(encoding="utf-8"))


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@pytest.mark.parametrize("benchmark_id", BENCHMARKS)
def test_a_benchmark_resolves_section_by_section_to_its_snapshot(benchmark_id: str) -> None:
    benchmark = load_benchmark(ROOT, benchmark_id)
    sections = {key: digest(value) for key, value in hashed(benchmark).items()}
    hashes = {"config_hash": config_hash(benchmark), "evaluation_hash": evaluation_hash(benchmark)}
    assert sections | hashes == BENCHMARKS[benchmark_id]


@pytest.mark.parametrize("study", ["camvid", "camvid-settings"])
def test_a_study_resolves_to_the_same_variants_in_the_same_order(study: str) -> None:
    for size in load_study(ROOT, study).sizes:
        plan = load_plan(ROOT, study, size)
        for benchmark in plan.benchmarks.values():
            hashes = {"config_hash": config_hash(benchmark), "evaluation_hash": evaluation_hash(benchmark)}
            assert hashes == VARIANTS[benchmark.id]
        assert digest(plan.runs) == VARIANTS[f"{study}-{size} runs"]
