"""Numbers as people read them: sensible digits, and None is said, never shown as zero."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from pydantic import JsonValue

from reports.document import NOT_MEASURED

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")
LARGEST = 1e15
MINUS = "\N{MINUS SIGN}"


def printable(text: str) -> str:
    """``text`` without the characters that neither XML nor HTML can hold."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def speedup(value: float | None) -> str:
    """``3.02x``, rounded down: a report never promises more than was measured."""
    return NOT_MEASURED if value is None else f"{_hundredths(value, ROUND_FLOOR)}x"


def requested(value: float | None) -> str:
    """``3x``: as it was asked for."""
    return NOT_MEASURED if value is None else f"{value:g}x"


def interval(low: float | None, high: float | None) -> str:
    """``3.00–3.05``, rounded outwards, so that the bounds still hold."""
    if low is None or high is None:
        return NOT_MEASURED
    return f"{_hundredths(low, ROUND_FLOOR)}\N{EN DASH}{_hundredths(high, ROUND_CEILING)}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """``86.1%``."""
    return NOT_MEASURED if fraction is None else f"{_signed(100 * fraction, digits)}%"


def points(difference: float | None, digits: int = 1) -> str:
    """A difference of two fractions, ``−1.9``, in percentage points, with its sign."""
    if difference is None:
        return NOT_MEASURED
    text = _signed(100 * difference, digits)
    return text if text.startswith(MINUS) or not text.strip("0.") else f"+{text}"


def milliseconds(seconds: float | None, digits: int | None = None) -> str:
    """``20.6``: seconds as milliseconds, with three digits that matter or ``digits`` behind the point."""
    if seconds is None:
        return NOT_MEASURED
    value = 1000 * seconds
    return _signed(value, _decimals(value) if digits is None else digits)


def milliseconds_digits(seconds: Sequence[float | None]) -> int:
    """Digits behind the point that suit a whole column of seconds, written as milliseconds."""
    return decimal_digits([None if s is None else 1000 * s for s in seconds])


def count(value: float | None) -> str:
    """``272,474``."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def significant(value: float | None) -> str:
    """Three digits that matter, ``0.0120`` or ``1.23e-07``."""
    return NOT_MEASURED if value is None else f"{value:#.3g}".rstrip(".").replace("-", MINUS)


def decimal(value: float | None, digits: int) -> str:
    """``0.1234``, or three digits that matter where ``digits`` behind the point would not show them."""
    if value is None:
        return NOT_MEASURED
    return _signed(value, digits) if not value or abs(value) >= 10**-digits else significant(value)


def decimal_digits(values: Sequence[float | None]) -> int:
    """Digits behind the point that suit a whole column: four that matter in its largest number."""
    return 1 + _decimals(max((abs(value) for value in values if value is not None), default=0.0))


def file_size(value: float | None) -> str:
    """``1.10 MB`` (decimal units)."""
    if value is None:
        return NOT_MEASURED
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} bytes"


def duration(seconds: float | None) -> str:
    """``2 h 05 min``, ``4 min 12 s`` or ``1.3 s``."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def flatten(facts: Mapping[str, JsonValue], prefix: str = "") -> list[tuple[str, str]]:
    """Settings or facts as (name, text) pairs, nested names joined with a point."""
    pairs: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs += flatten(value, f"{name}.")
        else:
            pairs.append(_fact(name, value))
    return pairs


def cache_size(value: float | None) -> str:
    """``32 MiB``, as caches are sized."""
    if value is None:
        return NOT_MEASURED
    return f"{value / 2**20:g} MiB" if value >= 2**20 else f"{value / 2**10:g} KiB"


SUFFIXES: dict[str, Callable[[float | None], str]] = {"_bytes": file_size, "_s": duration, "_seconds": duration}


def _fact(name: str, value: JsonValue) -> tuple[str, str]:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:
        if name.startswith("caches."):
            return name, cache_size(value)
        for suffix, text in SUFFIXES.items():
            if name.endswith(suffix):
                return name.removesuffix(suffix).replace("_", " "), text(value)
    return name.replace("_", " "), plain(value)


def plain(value: JsonValue) -> str:
    """Any JSON value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else NOT_MEASURED
    return str(value)


def _hundredths(value: float, rounding: str) -> str:
    # Six digits first, so that 3.02 stored as 3.0199999999999996 does not become 3.01.
    return f"{Decimal(f'{value:.6f}').quantize(Decimal('0.01'), rounding):,}".replace("-", MINUS)


def _signed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS) if text.strip("-0.,") else text.removeprefix("-")


def _decimals(value: float) -> int:
    magnitude = abs(value)
    return 0 if magnitude >= 100 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
