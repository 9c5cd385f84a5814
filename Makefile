# The two commands of the README are `make reproduce` and `make test`; all targets share one environment.
.DEFAULT_GOAL := help
PYTHON ?= python3
SIZE ?= small
STUDY ?= camvid
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
TOOLBOX := sssegmentation==1.7.0 dill==0.4.1  # Apache-2.0 and BSD; outside the lock, since no stage needs it
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
	$(BIN)/uv pip sync --compile-bytecode --quiet --python $(BIN)/python requirements.lock
	touch $@


env: $(VENV)/.installed  ## install the environment from requirements.lock

reproduce: env  ## run all stages for the benchmarks in params.yaml, then give a verdict [JOBS=trainings at once] [LAUNCHER="srun ..."]
	@if ! { test -e .git || git ls-files --error-unmatch dvc.yaml >/dev/null 2>&1; }; then \
		echo "no Git repository here: dvc goes on without (core.no_scm in .dvc/config.local), and no commit is recorded"; \
		$(BIN)/dvc config --local core.no_scm true; \
	elif grep -qs no_scm .dvc/config.local; then $(BIN)/dvc config --local --unset core.no_scm; fi
	$(if $(JOBS),$(BIN)/python -m pipeline run --jobs $(JOBS) $(if $(LAUNCHER),--launcher "$(LAUNCHER)"),$(BIN)/dvc repro)
	$(BIN)/python -m pipeline verify

verify: env  ## did the last run reproduce? compare it with the reference records or published numbers
	$(BIN)/python -m pipeline verify

reference: env  ## train the chosen benchmarks on two sets of kernels and add them to reports/reference (an hour)
	OMP_NUM_THREADS=2 $(BIN)/python -m pipeline reference --seeds $(or $(SEEDS),0 1 2 3 4)
	ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/python -m pipeline reference --seeds $(or $(SEEDS),0 1 2 3 4)

check: env  ## validate params.yaml, params/ and studies/; if they are valid, list the stages that would run
	$(BIN)/python -m pipeline check

row: env  ## evaluate (or train) a published row: make row ID=ade20k-resnet50os8 [MODE=train] [SEEDS="0 1 2"] [DRY_RUN=1]
	$(BIN)/python -m pipeline row $(ID) $(if $(MODE),--mode $(MODE)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DRY_RUN),--dry-run)

rows: env  ## evaluate the checkpoints of all published rows whose data is on this machine [DRY_RUN=1]
	$(BIN)/python -m pipeline rows $(if $(DRY_RUN),--dry-run)

study: env  ## train what a study lacks, then write its report: make study SIZE=small|full [STUDY=camvid] [AT_MOST=N]
	$(BIN)/python -m pipeline study $(STUDY) --size $(SIZE) $(if $(AT_MOST),--at-most $(AT_MOST))

study-report: env  ## write the report of a study from its committed records: make study-report SIZE=small|full [STUDY=camvid]
	$(BIN)/python -m pipeline study $(STUDY) --size $(SIZE) --report-only

test: env  ## lint and the tests (some minutes, no GPU, no network)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/system tests  # the longest first

toolbox: env  ## install the authors' toolbox, which the parity tests among the slow ones and `make bench` compare with
	@$(BIN)/python -c "import ssseg" 2>/dev/null || $(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python $(TOOLBOX)

test-slow: toolbox  ## the slow checks that `make test` leaves out (half an hour)
	$(BIN)/python -m pytest -m slow

bench: toolbox  ## time and memory against the authors' toolbox, on a GPU if there is one (minutes); writes benchmarks/results.json
	$(BIN)/python -m benchmarks --json benchmarks/results.json

lock: env  ## resolve pyproject.toml into requirements.lock again
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock

clean:  ## remove the environment (results and data stay)
	rm -rf $(VENV)

.PHONY: help env reproduce verify reference check row rows study study-report test toolbox test-slow bench lock clean
