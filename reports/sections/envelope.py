"""Where the speedup holds: heat maps over threads, batch and input sizes."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from reports.document import Column, Section, Table, Tone
from reports.formatting import interval, speedup
from reports.records import EnvelopeFile, EnvelopePlace, Run
from reports.sections.tables import absent

CERTIFIED, INCONCLUSIVE, MISSED = "certified", "inconclusive", "missed"
TONES: dict[str, Tone] = {CERTIFIED: "good", INCONCLUSIVE: "wary", MISSED: "bad"}
COLOURS = (
    "Green: the whole interval reaches the request. Red: none of it does. Yellow: the noise leaves it open. Every "
    "place was measured against the dense network under the same conditions, both in turns."
)


def envelope_section(run: Run) -> Section:
    """What `pipeline envelope` measured of this run's bundle."""
    maps = heat_maps(run.envelope.places)
    said = COLOURS
    if not maps:
        said = absent("Speedups over threads, batch and input sizes", EnvelopeFile.FILE, run.absent)
        said += " Measure them: pipeline envelope BUNDLE"
    return Section("envelope", "Operating envelope", (said,), maps)


def heat_maps(places: Sequence[EnvelopePlace]) -> tuple[Table, ...]:
    """One table an input size without a neighbour, one with, as far as they were measured."""
    found = []
    for size in dict.fromkeys(place.input_size for place in places):
        for neighbour, condition in ((False, "Alone"), (True, "Beside a busy neighbour")):
            here = {
                (place.threads, place.batch_size): place
                for place in places
                if (place.neighbour, place.input_size) == (neighbour, size)
            }
            if here:
                found.append(_heat_map(condition + (f", input size {size}" if size else ""), here))
    return tuple(found)


def _heat_map(caption: str, places: Mapping[tuple[int, int], EnvelopePlace]) -> Table:
    """Threads down, batch sizes across; a place that was not measured is empty."""
    batches = sorted({batch for _, batch in places})
    threads = sorted({count for count, _ in places})
    rows = [[places.get((count, batch)) for batch in batches] for count in threads]
    return Table(
        caption,
        (Column("Threads"), *(Column(f"Batch {batch}") for batch in batches)),
        tuple(
            (str(count), *(speedup_of(place.speedup) if place else "" for place in row))
            for count, row in zip(threads, rows, strict=True)
        ),
        tones=tuple(("", *(TONES.get(place.status, "") if place else "" for place in row)) for row in rows),
    )


class Bounds(Protocol):
    """A speedup with its interval."""

    @property
    def value(self) -> float | None:
        """The speedup."""

    @property
    def low(self) -> float | None:
        """The interval's lower end."""

    @property
    def high(self) -> float | None:
        """Its upper end."""


def speedup_of(measured: Bounds | None) -> str:
    """``3.02x (2.95-3.10)``."""
    return f"{speedup(measured.value)} ({interval(measured.low, measured.high)})" if measured else "not possible"
