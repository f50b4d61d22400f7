"""The operating envelope as tables: a heat map, threads down and batch sizes across."""

from collections.abc import Mapping

from pipeline.certificate import CERTIFIED, INCONCLUSIVE, MISSED
from pipeline.envelope import NOT_POSSIBLE, Envelope, Place
from pipeline.isa_parity import IsaPlace
from profilers.statistics import Interval
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
    unsure = [
        Notice("warning", "Left open by the noise", f"{where(place)}: {text(place)}")
        for place in envelope.places
        if place.status == INCONCLUSIVE
    ]
    fixed = ", ".join("x".join(map(str, shape)) for shape in envelope.sample_shape.values())
    about = (
        f"Green: the whole interval reaches {requested}. Red: none of it does. Yellow: the noise leaves it open. Every "
        "place was measured against the dense network under the same conditions, both in turns."
    )
    size = f"The bundle's files are made for inputs of {fixed}; for other sizes the run exported them anew."
    others = [
        Notice(
            "warning", "Other outputs", f"Kept to {place.isa}, {apart(place)} of the largest away from the golden ones"
        )
        for place in envelope.isas
        if not place.agrees
    ]
    return Summary(
        title="Operating envelope",
        subtitle=f"{envelope.bundle}, {envelope.runtime} on {envelope.host['model']}",
        status="certified" if held and not short else "missed" if short else "inconclusive",
        headline=f"{requested} holds in {len(held)} of {len(envelope.places)} places",
        notices=(*short, *unsure, *others),
        key_figures=(
            KeyFigure("Certified with", f"{threads} threads", f"batch {batch}"),
            KeyFigure("Under the request", str(len(short)), "places"),
            KeyFigure("Left open by the noise", str(len(unsure)), "places"),
        ),
        sections=(
            Section("envelope", "Speedup by threads, batch and input size", (about, size), heat_maps(envelope)),
            *isa_section(envelope),
        ),
        next_steps=(
            NextStep(
                "Certify another use",
                "Run with the threads and the batch size that will be deployed, beside the other settings of the run.",
                f"pipeline run --speedup {envelope.requested_speedup:g} --threads {threads} --batch-size {batch}",
            ),
        ),
    )


def heat_maps(envelope: Envelope) -> tuple[Table, ...]:
    """One table an input size without a neighbour, one with, as far as they were measured."""
    found = []
    for size in dict.fromkeys(place.input_size for place in envelope.places):
        for neighbour, condition in ((False, "Alone"), (True, "Beside a busy neighbour")):
            places = {
                (p.threads, p.batch_size): p
                for p in envelope.places
                if (p.neighbour, p.input_size) == (neighbour, size)
            }
            if places:
                found.append(_heat_map(condition + (f", input size {size}" if size else ""), places))
    return tuple(found)


def _heat_map(caption: str, places: Mapping[tuple[int, int], Place]) -> Table:
    """Threads down, batch sizes across."""
    batches = sorted({batch for _, batch in places})
    threads = sorted({count for count, _ in places})
    rows = [[places[count, batch] for batch in batches] for count in threads]
    return Table(
        caption,
        (Column("Threads"), *(Column(f"Batch {batch}") for batch in batches)),
        tuple((str(count), *(text(place) for place in row)) for count, row in zip(threads, rows, strict=True)),
        tones=tuple(("", *(TONES.get(place.status, "") for place in row)) for row in rows),
    )


def isa_section(envelope: Envelope) -> tuple[Section, ...]:
    """Outputs and speed under older instruction sets, where that was asked for."""
    if not envelope.isas:
        return ()
    said = [
        f"The certified use with {envelope.runtime} kept to older instruction sets, as older CPUs have them, on this "
        "CPU with its clock and caches. The outputs are compared with the golden ones. Without VNNI, sums of int8 "
        "products can saturate: quantise with a reduced range where they differ."
    ]
    if any("mlas" in kernel for place in envelope.isas for kernel in place.kernels or ()):
        said.append("OpenVINO's gemm_mlas kernels heed no limit: what they compute is not what an older CPU would say.")
    return (Section("isa", "Older instruction sets", tuple(said), (isa_table(envelope),)),)


def isa_table(envelope: Envelope) -> Table:
    """One row an instruction set, what the CPU has first."""
    rows = envelope.isas
    return Table(
        "Kept to an instruction set",
        (
            Column("Instruction set", numeric=False),
            Column("Outputs away", "of the largest"),
            Column("Latency", "ms"),
            Column("Slower by"),
            Column("Speedup over dense"),
            Column("Kernels", numeric=False),
        ),
        tuple(
            (
                place.isa or "all that this CPU has",
                apart(place),
                formatting.milliseconds(place.latency_s),
                f"{place.slowdown:.2f}x",
                _interval(place.speedup),
                ", ".join(place.kernels) if place.kernels else "it does not tell",
            )
            for place in rows
        ),
        tones=tuple(("", "good" if place.agrees else "bad", "", "", TONES.get(place.status, ""), "") for place in rows),
    )


def apart(place: IsaPlace) -> str:
    """``3.1%``."""
    return formatting.percent(place.difference, 2) if place.difference >= 5e-5 else "< 0.01%"


def where(place: Place) -> str:
    """``2 threads, batch 16, input size 48, beside a busy neighbour``."""
    words = [f"{place.threads} thread{'s' * (place.threads > 1)}", f"batch {place.batch_size}"]
    words += [f"input size {place.input_size}"] if place.input_size else []
    words += ["beside a busy neighbour"] if place.neighbour else []
    return ", ".join(words)


def text(place: Place) -> str:
    """``3.02x (2.95-3.10)``."""
    if place.speedup is None:
        return NOT_POSSIBLE
    return _interval(place.speedup)


def _interval(speedup: Interval) -> str:
    return f"{formatting.speedup(speedup.value)} ({formatting.interval(speedup.low, speedup.high)})"
