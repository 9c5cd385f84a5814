"""Commands beside `dvc repro`.

python -m pipeline check   validate params.yaml and params/, print what `dvc repro` would run
python -m pipeline sync    create MLflow runs for results that DVC restored from its cache
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parents[1]


def check() -> None:
    """Validate everything and print the plan; nothing is written."""
    from pipeline.plan import describe, make_plan  # torch takes seconds to import: only where it is needed

    print(describe(*make_plan(ROOT)))


def sync() -> None:
    """Back-fill MLflow from the files under runs/."""
    from pipeline.tracking.sync import sync as sync_runs

    created = sync_runs(ROOT)
    print("\n".join(created) if created else "every result has its MLflow run already")


def main(arguments: list[str]) -> None:
    """Entry point."""
    commands = {"check": check, "sync": sync}
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=commands)
    try:
        commands[parser.parse_args(arguments).command]()
    except PipelineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
