"""What changed from one release to another, and by how much; better or worse only where intervals part."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.releases.release import Accuracy, Network, Release
from profilers.statistics import Interval
from reports import formatting
from targets.levels import Level

Kind = Literal["ratio", "fraction", "seconds", "bytes"]
Verdict = Literal["better", "worse", "not told apart", "not judged"]

HELD_FOR = ("host", "runtime", "threads", "batch size", "precedence", "baseline precision")
"""A speedup holds for these; one that was measured for others is another figure."""
UNITS_NAMED = 3
"""Units whose change a line of text spells out."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of both releases.

    Args:
        kind: what the numbers are; decides how they are written.
        before_interval: (low, high) where the number has an interval.
        verdict: ``better`` and ``worse`` say that the intervals part.
        why: what kept it from being judged, or what the intervals are.
    """

    name: str
    kind: Kind
    before: float
    after: float
    before_interval: tuple[float, float] | None = None
    after_interval: tuple[float, float] | None = None
    verdict: Verdict = "not judged"
    why: str = ""

    @property
    def texts(self) -> tuple[str, str, str]:
        """Before, after and the change, for people."""
        return (
            number(self.kind, self.before, self.before_interval),
            number(self.kind, self.after, self.after_interval),
            _change(self.kind, self.before, self.after, self.change_interval),
        )

    @property
    def change_interval(self) -> tuple[float, float] | None:
        """Of what `texts` says of the change: after over before less one, of fractions the difference.

        Distances of the bounds add as squares, those of ratios in logarithms (MOVER, Zou & Donner, 2008).
        """
        if self.before_interval is None or self.after_interval is None:
            return None
        scale, back = (float, float) if self.kind == "fraction" else (math.log, math.expm1)
        before, after = scale(self.before), scale(self.after)
        (low, high), (new_low, new_high) = (
            tuple(map(scale, bounds)) for bounds in (self.before_interval, self.after_interval)
        )
        change = after - before
        return (
            back(change - math.hypot(after - new_low, high - before)),
            back(change + math.hypot(new_high - after, before - low)),
        )


@dataclass(frozen=True, slots=True)
class UnitChange:
    """A unit whose level is another one; None where a release does not have the unit."""

    name: str
    before: Level | None
    after: Level | None

    @property
    def by(self) -> float | None:
        """How much more is removed of the unit, as a fraction."""
        return self.after.amount - self.before.amount if self.before and self.after else None

    @property
    def by_text(self) -> str:
        """``+3.9 points``, or that only one of the releases has the unit."""
        if self.by is None:
            return "gone" if self.before else "new"
        return f"{formatting.points(self.by)} points"

    @property
    def text(self) -> str:
        """``layer1.0.conv1 60.2% → 64.1%``."""
        return f"{self.name} {level_text(self.before)} → {level_text(self.after)}"

    def to_json(self) -> dict[str, Any]:
        """Levels as their keys in files."""
        before, after = (level and level.key for level in (self.before, self.after))
        return {"name": self.name, "before": before, "after": after, "by": self.by}


@dataclass(frozen=True, slots=True)
class FactChange:
    """A condition of the measurement that is another one."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Changes:
    """Two releases beside each other; ``units`` is None where one has no plan."""

    before: Release
    after: Release
    figures: tuple[Figure, ...]
    units: tuple[UnitChange, ...] | None
    facts: tuple[FactChange, ...]

    @property
    def plan_text(self) -> str:
        """What changed in the plan, the largest changes by name."""
        if self.units is None:
            return "plan not known"
        if not self.units:
            return "the same plan"
        largest = sorted(self.units, key=lambda unit: -abs(1.0 if unit.by is None else unit.by))
        more = f", {len(largest) - UNITS_NAMED} more" if len(largest) > UNITS_NAMED else ""
        return f"other levels: {', '.join(unit.text for unit in largest[:UNITS_NAMED])}{more}"

    @property
    def regressions(self) -> tuple[Figure, ...]:
        """The figures whose intervals part for the worse."""
        return tuple(figure for figure in self.figures if figure.verdict == "worse")

    def figure(self, name: str) -> Figure:
        """The figure of that name."""
        return next(figure for figure in self.figures if figure.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {
            "before": self.before.name,
            "after": self.after.name,
            "figures": [asdict(figure) | {"change_interval": figure.change_interval} for figure in self.figures],
            "units": None if self.units is None else [unit.to_json() for unit in self.units],
            "facts": [asdict(fact) for fact in self.facts],
            "regressions": [figure.name for figure in self.regressions],
        }


def compare(before: Release, after: Release) -> Changes:
    """What changed from one release to the next."""
    one, two = before.certificate, after.certificate
    figures = (
        _speedup(before, after),
        _accuracy(before, after),
        _latency("latency", one.compressed, two.compressed),
        *_deployed("latency of the slowest in 100", "seconds", one.deployed.p99_s, two.deployed.p99_s),
        *_deployed("peak memory", "bytes", one.deployed.peak_rss_bytes, two.deployed.peak_rss_bytes),
        _latency("dense latency", one.baseline, two.baseline),
        Figure("speedup over best dense", "ratio", one.speedup_over_best_dense, two.speedup_over_best_dense),
        Figure("sparsity", "fraction", one.compressed.sparsity, two.compressed.sparsity),
        Figure("model file", "bytes", one.file_bytes.compressed_onnx, two.file_bytes.compressed_onnx),
    )
    return Changes(before, after, figures, _units(before, after), tuple(_facts(before, after)))


def _latency(name: str, before: Network, after: Network) -> Figure:
    """Not judged, since a machine is faster or slower from day to day: that is what the speedup is for."""
    return Figure(name, "seconds", before.latency_s, after.latency_s, before.interval_s, after.interval_s)


def _deployed(name: str, kind: Kind, before: float | None, after: float | None) -> list[Figure]:
    """The figure, if both were measured."""
    return [] if before is None or after is None else [Figure(name, kind, before, after)]


def judge(before: Interval, after: Interval) -> Verdict:
    """Of a figure of which more is better: only intervals that part tell two releases apart."""
    if after.low > before.high:
        return "better"
    return "worse" if after.high < before.low else "not told apart"


def _speedup(before: Release, after: Release) -> Figure:
    one, two = before.certificate, after.certificate
    first, second = (Interval(c.measured_speedup, c.ci_low, c.ci_high, c.confidence) for c in (one, two))
    obstacles = [f"{fact.name} {fact.before} → {fact.after}" for fact in _facts(before, after) if fact.name in HELD_FOR]
    obstacles += [
        f"{r.name} was measured on a disturbed machine" for r in (before, after) if r.certificate.is_disturbed
    ]
    return _figure("speedup", "ratio", first, second, ", ".join(obstacles), f"{one.confidence:.0%} intervals")


def _accuracy(before: Release, after: Release) -> Figure:
    one, two = before.certificate.accuracy, after.certificate.accuracy
    paired = _same_dense(before, after)
    first, second = (accuracy_interval(accuracy, paired) for accuracy in (one, two))
    obstacle = ""
    if (one.metric, one.n) != (two.metric, two.n):
        obstacle = f"{one.metric} of {one.n} samples → {two.metric} of {two.n} samples"
    told = "paired with the dense network of both" if paired else "unpaired: not known to come from one dense network"
    return _figure("accuracy", "fraction", first, second, obstacle, f"{one.confidence:.0%} intervals, {told}")


def _figure(name: str, kind: Kind, before: Interval, after: Interval, obstacle: str, intervals: str) -> Figure:
    return Figure(
        name,
        kind,
        before.value,
        after.value,
        (before.low, before.high),
        (after.low, after.high),
        "not judged" if obstacle else judge(before, after),
        obstacle or intervals,
    )


def _same_dense(before: Release, after: Release) -> bool:
    """Whether both were compressed from one network and scored on the same samples, as far as files can tell."""
    one, two = before.certificate.accuracy, after.certificate.accuracy
    hashes = [release.files.get("dense.onnx") for release in (before, after)]
    return None not in hashes and hashes[0] == hashes[1] and (one.dense, one.n) == (two.dense, two.n)


def accuracy_interval(accuracy: Accuracy, paired: bool) -> Interval:
    """The compressed network's accuracy with its interval.

    Paired, it is the dense network's accuracy plus the certificate's interval of the difference, which is narrow since
    both were scored on the same samples; for releases with one dense network alone. Otherwise it is its own.
    """
    low, high = accuracy.compressed_low, accuracy.compressed_high
    if paired:
        low, high = accuracy.dense + accuracy.ci_low, accuracy.dense + accuracy.ci_high
    # Draws that are all alike are not the certainty that others would be: at most 3 in n, at 95% ("rule of three").
    slack = -math.log(1 - accuracy.confidence) / accuracy.n if low == high else 0.0
    return Interval(accuracy.compressed, max(low - slack, 0.0), min(high + slack, 1.0), accuracy.confidence)


def _units(before: Release, after: Release) -> tuple[UnitChange, ...] | None:
    one, two = before.plan, after.plan
    if one is None or two is None:
        return None
    names = [*one, *(name for name in two if name not in one)]
    changes = (UnitChange(name, one.get(name), two.get(name)) for name in names)
    return tuple(change for change in changes if change.before != change.after)


def _facts(before: Release, after: Release) -> list[FactChange]:
    one, two = (_conditions(release) for release in (before, after))
    names = [*one, *(name for name in two if name not in one)]
    changes = (FactChange(name, one.get(name, "not known"), two.get(name, "not known")) for name in names)
    return [change for change in changes if change.before != change.after]


def _conditions(release: Release) -> dict[str, str]:
    certificate = release.certificate
    target = certificate.target
    return {
        "status": certificate.status,
        "requested speedup": formatting.requested(certificate.requested_speedup),
        "host": f"{certificate.host.model} ({certificate.host.id})",
        "runtime": target.runtime,
        "threads": str(target.threads),
        "batch size": str(target.batch_size),
        "precedence": "over other processes" if certificate.was_ahead else "none",
        "baseline precision": certificate.baseline.precision,
        "proxy": formatting.plain(certificate.proxy),
        "licence": certificate.licence_note,
        **certificate.versions,
    } | ({"dense network": release.files["dense.onnx"][:12]} if "dense.onnx" in release.files else {})


def number(kind: Kind, value: float, interval: tuple[float, float] | None = None) -> str:
    """``3.02x (3.00–3.04)``, ``99.11% (98.20%–99.80%)``, ``0.610 ms``, ``2.79 MB``."""
    match kind:
        case "ratio":
            text, bounds = formatting.speedup(value), formatting.interval(*interval) if interval else ""
        case "fraction":
            text = formatting.percent(value, 2)
            bounds = "\N{EN DASH}".join(formatting.percent(bound, 2) for bound in interval) if interval else ""
        case "seconds":
            text = f"{formatting.milliseconds(value)} ms"
            bounds = "\N{EN DASH}".join(map(formatting.milliseconds, interval)) if interval else ""
        case "bytes":
            text, bounds = formatting.file_size(value), ""
    return f"{text} ({bounds})" if bounds else text


def _change(kind: Kind, before: float, after: float, interval: tuple[float, float] | None) -> str:
    digits, unit = (2, " points") if kind == "fraction" else (1, "%")
    change = after - before if kind == "fraction" else after / before - 1 if before else 0.0
    bounds = " to ".join(formatting.points(bound, digits) for bound in interval) if interval else ""
    return formatting.points(change, digits) + unit + (f" ({bounds})" if bounds else "")


def level_text(level: Level | None) -> str:
    """``60.2%``, ``dense``, ``50.0% channel int8``, or ``none`` for a unit that is not there."""
    if level is None:
        return "none"
    amount = "" if level.family == "dense" else formatting.percent(level.amount)
    family = "" if level.family == "unstructured" else level.family
    precision = "" if level.precision == "fp32" else level.precision
    return " ".join(part for part in (amount, family, precision) if part)
