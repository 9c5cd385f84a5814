"""Numbers and configuration in words. Fractions come in, percent and percentage points come out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.schema import Benchmark, ProtocolConfig
from pipeline.results.statistics import Estimate

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


def percent_interval(estimate: Estimate) -> str:
    """[64.10, 66.02] in percent, of one training `over images`; without an interval (NaN) a dash."""
    if not estimate.has_interval:
        return NONE
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]" + " over images" * (not estimate.covers_seeds)


def points_interval(estimate: Estimate) -> str:
    """[−0.12, +1.30] in percentage points; a dash without an interval over trainings."""
    return _in_points(estimate) if estimate.covers_seeds else NONE


def image_interval(estimate: Estimate) -> str:
    """The interval over images of one training of each side; a dash if there are several."""
    return NONE if estimate.covers_seeds else _in_points(estimate)


def _in_points(estimate: Estimate) -> str:
    return f"[{points(estimate.low)}, {points(estimate.high)}]" if estimate.has_interval else NONE


def verdict(estimate: Estimate) -> str:
    """gain, loss or not resolved, by the adjusted p-value; of one training of each side neither can be said."""
    if not estimate.covers_seeds:
        return "one training each"
    return ("gain" if estimate.value > 0 else "loss") if estimate.resolved else "not resolved"


def p_value(p: float) -> str:
    """Two significant digits, without claiming more than 0.0001; NaN -> a dash."""
    return NONE if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def class_share(value: float) -> str:
    """Percent with two significant digits: 35.2, 0.84, 0.021."""
    number = 100 * value
    return "0" if number == 0 else f"{number:.1f}" if number >= 10 else f"{number:.2g}"


def duration(seconds: float) -> str:
    """42.0 s, 3 min 20 s, 5 h 07 min."""
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
    """`A CPU, 2 cores, 1 thread`: the `hardware` of a run."""
    cores, threads = f"{machine.get('cores')} cores", plural(machine["threads"], "thread")
    parts = [machine.get("gpu"), machine.get("cpu"), cores, threads]
    return plain(", ".join(part for part in parts if part))


def millions(number: float) -> str:
    """12345678 -> 12.35 M."""
    return f"{number / 1e6:.2f} M"


def operations(number: float | None) -> str:
    """Floating-point operations in units of 10^9: 12.3 G; None -> a dash."""
    return NONE if number is None else f"{number / 1e9:.3g} G"


def plural(number: int, noun: str) -> str:
    """1 seed, 2 seeds, 3 classes."""
    suffix = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{suffix}"


def listing(words: Sequence[object]) -> str:
    """a; a and b; a, b and c."""
    texts = [str(word) for word in words]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"


def framework(benchmark: Benchmark) -> str:
    """The framework's usual spelling."""
    return FRAMEWORKS.get(benchmark.segmentor.framework, benchmark.segmentor.framework)


def protocol(config: ProtocolConfig) -> str:
    """An inference protocol in one phrase, windows as height×width."""
    parts = ["whole image"]
    if config.crop is not None:
        window, step = config.crop, config.stride
        parts = [f"windows of {window[0]}×{window[1]} every {step[0]}×{step[1]}"]
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    if config.resize is not None and config.resize.size is not None:
        parts.insert(0, f"images of {config.resize.size[0]}×{config.resize.size[1]}")
    elif config.resize is not None:
        parts.insert(0, f"images within {config.resize.long}×{config.resize.short}")
    parts.append(f"scale {scales}" if len(config.scales) == 1 else f"scales {scales}")
    parts += ["flip"] if config.flip else []
    parts += [f"{config.average} averaged"] if config.flip or len(config.scales) > 1 else []
    return ", ".join(parts)
