"""The printed form of the measurements."""

from __future__ import annotations

from typing import Any

_MIB = 2**20
_COLUMNS = ("row", "time", "reference", "faster", "memory", "reference", "smaller")
_WIDTHS = (26, 18, 12, 8, 10, 10, 8)


def heading(about: dict[str, Any]) -> str:
    """What was measured on, and the names of the columns."""
    load = "" if about["load"] is None else f", load {about['load']:.1f}"
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['threads']} threads, device {about['device']}, "
        f"torch {about['torch']}",
        f"commit {about['commit'][:10]} with {about['changed_files']} changed files{load}",
        "time: median per unit; faster: median of the ratios within a round; memory: what one call adds at its peak",
        "",
        _row(_COLUMNS),
        _row(tuple("-" * width for width in _WIDTHS)),
    ]
    return "\n".join(lines)


def line(name: str, result: dict[str, Any]) -> str:
    """One row, and below it what it measured."""
    memory = {side: value["extra"] for side, value in result["memory"].items()}
    smaller = memory["reference"] / max(memory["ours"], 1) if len(memory) == 2 else None
    cells = (
        name,
        f"{_seconds(result['ours_s'])} / {result['unit']}",
        _seconds(result["reference_s"]),
        _times(result["ratio"]),
        _mebibytes(memory.get("ours")),
        _mebibytes(memory.get("reference")),
        _times(smaller),
    )
    return f"{_row(cells)}\n    {result['setting']}"


def precision(result: dict[str, Any]) -> str:
    """Training step by precision, beside the time that arithmetic and memory traffic alone would take."""
    lines = ["", f"training step by precision: {result['setting']}"]
    for name, step in result["steps"].items():
        arithmetic, traffic = _seconds(step["floor_flops_s"]), _seconds(step["floor_bytes_s"])
        lines += [
            f"  {name:34s} {_seconds(step['seconds']):>9s}, {_times(step['faster'])} the reference, "
            f"memory {_mebibytes(step['memory'])}, loss {step['loss']:.4f}",
            f"  {'':34s} floors: arithmetic {arithmetic}, memory traffic {traffic}; "
            f"{step['graphs']} graphs compiled, {step['graph_breaks']} graph breaks",
        ]
    return "\n".join(lines)


def _row(cells: tuple[str, ...]) -> str:
    others = (f"{cell:>{width}s}" for cell, width in zip(cells[1:], _WIDTHS[1:], strict=True))
    return "  ".join([f"{cells[0]:<{_WIDTHS[0]}s}", *others])


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def _mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / _MIB:.0f} MiB"
