"""Commands beside `dvc repro`.

python -m pipeline check    validate all configuration files; if they are valid, list the stages that would run
python -m pipeline run --jobs N                what `dvc repro` does, with N trainings at once
python -m pipeline verify   compare the results with the reference records, or with published numbers: did it reproduce?
python -m pipeline verify STUDY --size SIZE   compare rerun trainings of a study with its committed records
python -m pipeline reference --seeds SEED...  train the chosen benchmarks and add them to the reference records
python -m pipeline sync     create MLflow runs for results that DVC restored from its cache
python -m pipeline row ID   evaluate the checkpoint of one published row, or train it (--mode train)
python -m pipeline rows     evaluate the checkpoints of all published rows whose data is on this machine
python -m pipeline study NAME --size SIZE   train and evaluate what the study lacks, then write its report
python -m pipeline predict --model MODEL --images FOLDER --out FOLDER   label maps of your own images
python -m pipeline export  --model MODEL --out FOLDER                   weights with a card, torch.export, ONNX

MODEL is a run, BENCHMARK/SEED as under runs/train, or a .safetensors file that `export` wrote, with its card beside it.
`row`, `rows` and `study` first print what they will do; with --dry-run they stop there.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from pipeline.errors import report_user_errors

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> None:
    """Run one command. Its modules are imported here: torch and MLflow take seconds."""
    options = _parser().parse_args(arguments)
    with report_user_errors():
        match options.command:
            case "check":
                from pipeline.planning.check import check

                print(check(ROOT))
            case "run":
                from pipeline.planning.jobs import run_jobs

                run_jobs(ROOT, options.jobs, shlex.split(options.launcher))
            case "verify":
                from pipeline.planning.verify import verify

                if not verify(ROOT, options.study, options.size):
                    sys.exit(1)
            case "reference":
                from pipeline.planning.reference import add_references

                add_references(ROOT, options.seeds)
            case "sync":
                from pipeline.tracking.sync import sync

                created = sync(ROOT)
                print("\n".join(created) if created else "every result has its MLflow run already")
            case "row":
                from pipeline.planning.rows import run_row

                run_row(ROOT, options.id, options.mode, options.seeds, options.dry_run)
            case "rows":
                from pipeline.planning.rows import run_rows

                run_rows(ROOT, options.dry_run)
            case "study":
                from pipeline.planning.studies import study

                study(ROOT, options, arguments)
            case "predict":
                from pipeline.predict.folder import predict_folder

                predict_folder(
                    ROOT,
                    options.model,
                    options.images,
                    options.out,
                    ms_flip=options.ms_flip,
                    windows=options.windows,
                    overlay=options.overlay,
                    probabilities=options.probabilities,
                    device=options.device,
                    batch=options.batch,
                )
            case "export":
                from pipeline.export.export import export_model

                size = tuple(options.size) if options.size else None
                export_model(ROOT, options.model, options.out, options.format, size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("sync")
    run = commands.add_parser("run")
    run.add_argument("--jobs", type=_positive, required=True, metavar="N", help="trainings at once")
    run.add_argument(
        "--launcher",
        default="",
        metavar="COMMAND",
        help="runs each stage as a job of a cluster and waits for it, such as 'srun --quit-on-interrupt --gres=gpu:1'",
    )
    verify, reference = commands.add_parser("verify"), commands.add_parser("reference")
    verify.add_argument(
        "study", nargs="?", help="a file of studies/ without its ending; default: what params.yaml chooses"
    )
    verify.add_argument("--size", help="the study's size")
    reference.add_argument("--seeds", type=_seed, nargs="+", required=True, help="of the trainings")
    row, rows = commands.add_parser("row"), commands.add_parser("rows")
    row.add_argument("id", help="a benchmark of params/ with published numbers")
    row.add_argument("--mode", choices=("import", "train"), default="import")
    row.add_argument("--seeds", type=_seed, nargs="+", help="of the trainings; default: those of params.yaml")
    study = commands.add_parser("study")
    study.add_argument("name", help="a file of studies/ without its ending")
    study.add_argument("--size", required=True, help="one of the study's sizes")
    study.add_argument("--report-only", action="store_true", help="write the report from the records and stop")
    study.add_argument("--at-most", type=_positive, metavar="N", help="stop after N runs")
    for command in (row, rows, study):
        command.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    predict, export = commands.add_parser("predict"), commands.add_parser("export")
    for command in (predict, export):
        command.add_argument("--model", required=True, help="BENCHMARK/SEED, or a .safetensors file with its card")
        command.add_argument("--out", required=True, type=Path, help="folder, created if it does not exist")
    predict.add_argument("--images", required=True, type=Path, help="an image, or a folder with its sub-folders")
    predict.add_argument("--ms-flip", action="store_true", help="the model's multi-scale + flip protocol")
    predict.add_argument("--windows", action="store_true", help="slide the training crop over large images")
    predict.add_argument("--overlay", action="store_true", help="also the images under the classes' colours")
    predict.add_argument("--probabilities", action="store_true", help="also (K, H, W) float16 .npy files")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    predict.add_argument("--batch", type=_positive, default=1, help="images of equal size per forward pass")
    export.add_argument("--format", nargs="+", choices=("torch", "onnx"), default=(), help="graphs beside the weights")
    export.add_argument("--size", type=_positive, nargs=2, metavar=("HEIGHT", "WIDTH"), help="fixed input of graphs")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a seed, 0 or more, found {text!r}")
    return int(text)


if __name__ == "__main__":
    main(sys.argv[1:])
