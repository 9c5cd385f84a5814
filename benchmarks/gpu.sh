#!/bin/sh
# Checks and measurements on a machine with a GPU, at most 25 minutes in all:
#   benchmarks/gpu.sh OUT [COMMAND ...]        the minutes that are left go to COMMAND
# Without `make env` here it takes python3 with its own torch, and wheels/*.whl for what that lacks (docs/performance.md).
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
if [ ! -x "$python" ]; then
    python=${PYTHON:-python3}
    site=$(mktemp -d)
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" wheels/*.whl
    export PYTHONPATH="$site"
fi
out=$1
shift
exec "$python" -m benchmarks.gpu --out "$out" -- "$@"
