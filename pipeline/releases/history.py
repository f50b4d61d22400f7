"""The history of releases: latency, speedup and accuracy one after the other, and what changed in the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.releases.release import Release
from pipeline.releases.release_changes import Changes, compare, number
from reports import formatting
from reports.document import Column, Table


@dataclass(frozen=True, slots=True)
class History:
    """Releases from the first to the last; ``changes`` [releases - 1] leads from each to the next."""

    releases: tuple[Release, ...]
    changes: tuple[Changes, ...]

    @property
    def regressions(self) -> list[str]:
        """What became worse where, in words."""
        return [
            f"{figure.name} {' → '.join(figure.texts[:2])}, from {change.before.name} to {change.after.name}"
            for change in self.changes
            for figure in change.regressions
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {
            "releases": [{"name": r.name, **r.certificate.model_dump(mode="json")} for r in self.releases],
            "changes": [change.to_json() for change in self.changes],
            "regressions": self.regressions,
        }


def history_of(releases: Sequence[Release]) -> History:
    """Releases by the time of their certificates, or in the order given where one does not say its time."""
    times = [(created, place) for place, release in enumerate(releases) if (created := release.certificate.created)]
    if len(times) == len(releases):
        releases = [releases[place] for _, place in sorted(times)]
    return History(tuple(releases), tuple(compare(one, two) for one, two in pairwise(releases)))


def history_table(history: History) -> Table:
    """A row a release, for terminals and pages."""
    columns = (
        Column("Release", numeric=False),
        Column("Measured"),
        Column("Status", numeric=False),
        Column("Latency", "ms"),
        Column("Speedup"),
        Column("Accuracy"),
        Column("Model file"),
    )
    return Table("Releases", columns, tuple(_row(release) for release in history.releases))


def _row(release: Release) -> tuple[str, ...]:
    certificate = release.certificate
    return (
        release.name,
        f"{certificate.created:%Y-%m-%d}" if certificate.created else "unknown",
        certificate.status,
        formatting.milliseconds(certificate.compressed.latency_s),
        number("ratio", certificate.measured_speedup, (certificate.ci_low, certificate.ci_high)),
        formatting.percent(certificate.accuracy.compressed),
        formatting.file_size(certificate.file_bytes.compressed_onnx),
    )


def change_texts(change: Changes) -> tuple[str, ...]:
    """What changed from one release to the next, line by line."""
    judged = [f"{f.name} {f.texts[2]}, {f.verdict} ({f.why})" for f in change.figures if f.why]
    return (f"{change.before.name} → {change.after.name}: {change.plan_text}", *judged)
