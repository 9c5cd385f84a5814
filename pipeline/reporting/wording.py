"""Numbers and configuration in words. Fractions come in, percent and percentage points come out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import Benchmark, ProtocolConfig

PROTOCOLS = {"single_scale": "single scale", "ms_flip": "multi-scale + flip"}
FRAMEWORKS = {
    "fcn": "FCN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "ocrnet": "OCRNet",
    "upernet": "UPerNet",
}
NONE = "–"


def plain(text: str) -> str:
    """`text` with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.6543 -> 65.43; NaN and None -> a dash."""
    return NONE if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def points(fraction: float, digits: int = 2) -> str:
    """Signed percentage points with a true minus sign: -0.0123 -> −1.23; 0 -> 0.00; NaN -> a dash."""
    if math.isnan(fraction):
        return NONE
    number = round(100 * fraction, digits)
    return f"{number:+.{digits}f}".replace("-", "−") if number else f"{0:.{digits}f}"


def percent_interval(low: float, high: float) -> str:
    """[64.10, 66.02] in percent; without an interval (NaN) a dash."""
    return NONE if math.isnan(low) else f"[{percent(low)}, {percent(high)}]"


def points_interval(low: float, high: float) -> str:
    """[−0.12, +1.30] in percentage points; without an interval (NaN) a dash."""
    return NONE if math.isnan(low) else f"[{points(low)}, {points(high)}]"


def probability(share: float, samples: int) -> str:
    """A share of resamples, without claiming more than the number of resamples can show."""
    if share >= 1:
        return f"> {100 - 100 / samples:.4g} %"
    return f"< {100 / samples:.2g} %" if share <= 0 else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 5 h 07 min."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_time(seconds: float | None) -> str:
    """Time of one step: milliseconds below a second; None -> a dash."""
    if seconds is None:
        return NONE
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def memory_size(number: float | None) -> str:
    """Bytes as MiB or GiB."""
    if not number:
        return NONE
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def machine_in_words(machine: Mapping[str, Any]) -> str:
    """`A CPU, 2 cores, 1 thread`: the `hardware` of a run; threads are absent from records of older commits."""
    parts = [machine.get("gpu"), machine.get("cpu"), f"{machine.get('cores')} cores"]
    if machine.get("threads"):
        parts.append(plural(machine["threads"], "thread"))
    return plain(", ".join(part for part in parts if part))


def millions(number: float) -> str:
    """12345678 -> 12.35 M."""
    return f"{number / 1e6:.2f} M"


def plural(number: int, noun: str) -> str:
    """1 seed, 2 seeds, 3 classes."""
    suffix = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{suffix}"


def listing(words: list[str]) -> str:
    """a; a and b; a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def framework(benchmark: Benchmark) -> str:
    """The framework's usual spelling."""
    return FRAMEWORKS.get(benchmark.segmentor.framework, benchmark.segmentor.framework)


def compact_protocol(config: ProtocolConfig) -> str:
    """An inference protocol in as few words as a table cell allows, windows as height×width."""
    parts = ["whole"]
    if config.crop is not None and config.stride is not None:
        parts = [f"slide {config.crop[0]}×{config.crop[1]} by {config.stride[0]}×{config.stride[1]}"]
    low, high = min(config.scales), max(config.scales)
    parts.append(f"scale {low:g}" if len(config.scales) == 1 else f"{len(config.scales)} scales {low:g}–{high:g}")
    parts += ["flip"] if config.flip else []
    return ", ".join([*parts, *([config.average] if config.flip or len(config.scales) > 1 else [])])


def protocol(config: ProtocolConfig) -> str:
    """An inference protocol in one phrase."""
    parts = ["whole image"]
    if config.crop is not None and config.stride is not None:
        window, step = config.crop, config.stride
        parts = [f"windows of {window[0]}×{window[1]} (height × width) every {step[0]}×{step[1]}"]
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    parts.append(f"scale {scales}" if len(config.scales) == 1 else f"scales {scales}")
    parts.append("with horizontal flip" if config.flip else "no flip")
    if config.flip or len(config.scales) > 1:
        parts.append(f"{config.average} averaged")
    return ", ".join(parts)
