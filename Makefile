# The two commands of the README are `make reproduce` and `make test`; everything else builds on the same environment.
.DEFAULT_GOAL := help
PYTHON ?= python3
SIZE ?= small
STUDY ?= camvid
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export NO_ALBUMENTATIONS_UPDATE := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed, this is %s; set PYTHON=..." % sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	touch $@


env: $(VENV)/.installed  ## the environment, from requirements.lock

reproduce: env  ## environment, then all stages for the benchmarks in params.yaml, ending with reports/report.html
	$(BIN)/dvc repro

check: env  ## every mistake of params.yaml, params/ and studies/, else what `dvc repro` would run, its time and disk
	$(BIN)/python -m pipeline check

row: env  ## one published row: make row ID=ade20k-resnet50os8 [MODE=train] [SEEDS="0 1 2"] [DRY_RUN=1]
	$(BIN)/python -m pipeline row $(ID) $(if $(MODE),--mode $(MODE)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DRY_RUN),--dry-run)

rows: env  ## evaluate the checkpoints of all published rows whose data is on this machine [DRY_RUN=1]
	$(BIN)/python -m pipeline rows $(if $(DRY_RUN),--dry-run)

study: env  ## train what a study lacks, then its report: make study SIZE=small|full [STUDY=camvid] [AT_MOST=N]; several shells share the work
	$(BIN)/python -m pipeline study $(STUDY) --size $(SIZE) $(if $(AT_MOST),--at-most $(AT_MOST))

study-report: env  ## the report of a study from the committed results alone: make study-report SIZE=small|full [STUDY=camvid]
	$(BIN)/python -m pipeline study $(STUDY) --size $(SIZE) --report-only

test: env  ## lint and the tests (some minutes, no GPU, no network)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: env  ## the slower checks that `make test` leaves out
	$(BIN)/python -m pytest -m slow

check-browser: env  ## look at the report and MLflow's pages in a headless Chromium, if there is one (minutes)
	$(BIN)/python -m pytest -m slow tests/test_browser.py -rs

bench: env  ## time and memory against a plain reference, on a GPU if there is one (minutes); writes benchmarks/results.json
	$(BIN)/python -m benchmarks --json benchmarks/results.json

lock: env  ## resolve pyproject.toml into requirements.lock again
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean:  ## remove the environment (results and data stay)
	rm -rf $(VENV)

.PHONY: help env reproduce check row rows study study-report test test-slow check-browser bench lock clean
