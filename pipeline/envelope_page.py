"""The operating envelope as tables: a heat map, threads down and batch sizes across."""

from pipeline.certificate import CERTIFIED, INCONCLUSIVE, MISSED
from pipeline.envelope import NOT_POSSIBLE, Envelope, Place
from reports import formatting
from reports.document import Column, KeyFigure, NextStep, Notice, Section, Summary, Table, Tone

TONES: dict[str, Tone] = {CERTIFIED: "good", INCONCLUSIVE: "wary", MISSED: "bad"}


def envelope_page(envelope: Envelope) -> Summary:
    """The envelope as a page."""
    requested = formatting.requested(envelope.requested_speedup)
    threads, batch = envelope.certified
    held = [place for place in envelope.places if place.status == CERTIFIED]
    short = [
        Notice("warning", "Under the request", f"{where(place)}: {text(place)}, {requested} was asked for")
        for place in envelope.short
    ]
    fixed = ", ".join("x".join(map(str, shape)) for shape in envelope.sample_shape.values())
    about = (
        f"Green: the whole interval reaches {requested}. Red: none of it does. Yellow: the noise leaves it open. Every "
        "place was measured against the dense network under the same conditions, both in turns."
    )
    size = f"The input size is {fixed} alone: the bundle's files are made for it. Export again to try another one."
    return Summary(
        title="Operating envelope",
        subtitle=f"{envelope.bundle}, {envelope.runtime} on {envelope.host['model']}",
        status="certified" if held and not short else "missed" if short else "inconclusive",
        headline=f"{requested} holds in {len(held)} of {len(envelope.places)} places",
        notices=tuple(short),
        key_figures=(
            KeyFigure("Certified with", f"{threads} threads", f"batch {batch}"),
            KeyFigure("Under the request", str(len(short)), "places"),
        ),
        sections=(Section("envelope", "Speedup by threads and batch size", (about, size), heat_maps(envelope)),),
        next_steps=(NextStep("Certify another use", "Run with the batch size and threads that will be deployed:"),),
    )


def heat_maps(envelope: Envelope) -> tuple[Table, ...]:
    """One table without a neighbour, one with, as far as they were measured."""
    found = []
    for neighbour, caption in ((False, "Alone"), (True, "Beside a busy neighbour")):
        places = {(p.threads, p.batch_size): p for p in envelope.places if p.neighbour == neighbour}
        if places:
            batches = sorted({batch for _, batch in places})
            threads = sorted({count for count, _ in places})
            rows = [[places[count, batch] for batch in batches] for count in threads]
            found.append(
                Table(
                    caption,
                    (Column("Threads"), *(Column(f"Batch {batch}") for batch in batches)),
                    tuple(
                        (str(count), *(text(place) for place in row)) for count, row in zip(threads, rows, strict=True)
                    ),
                    tones=tuple(("", *(TONES.get(place.status, "") for place in row)) for row in rows),
                )
            )
    return tuple(found)


def where(place: Place) -> str:
    """``2 threads, batch 16, beside a busy neighbour``."""
    threads = f"{place.threads} thread{'s' * (place.threads > 1)}"
    return f"{threads}, batch {place.batch_size}{', beside a busy neighbour' * place.neighbour}"


def text(place: Place) -> str:
    """``3.02x (2.95-3.10)``."""
    if place.speedup is None:
        return NOT_POSSIBLE
    return f"{formatting.speedup(place.speedup.value)} ({formatting.interval(place.speedup.low, place.speedup.high)})"
