"""The operating envelope as a page: heat maps, what falls short, and older instruction sets."""

import json

from pipeline.certification.certificate import CERTIFIED, INCONCLUSIVE
from pipeline.envelope.envelope import Envelope, Place
from pipeline.envelope.isa_parity import IsaPlace
from reports import formatting
from reports.document import Column, KeyFigure, NextStep, Notice, Section, Summary, Table
from reports.records import EnvelopeFile
from reports.sections.envelope import COLOURS, TONES, heat_maps, speedup_of


def envelope_page(envelope: Envelope) -> Summary:
    """The envelope as a page."""
    requested = formatting.requested(envelope.requested_speedup)
    threads, batch = envelope.certified
    held = [place for place in envelope.places if place.status == CERTIFIED]
    short = [
        Notice("warning", "Under the request", f"{where(place)}: {speedup_of(place.speedup)}, asked for {requested}")
        for place in envelope.short
    ]
    unsure = [
        Notice("warning", "Left open by the noise", f"{where(place)}: {speedup_of(place.speedup)}")
        for place in envelope.places
        if place.status == INCONCLUSIVE
    ]
    fixed = ", ".join("x".join(map(str, shape)) for shape in envelope.sample_shape.values())
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
            Section("envelope", "Speedup by threads, batch and input size", (COLOURS, size), maps_of(envelope)),
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


def maps_of(envelope: Envelope) -> tuple[Table, ...]:
    """Its heat maps, as reports show them."""
    return heat_maps(EnvelopeFile.model_validate_json(json.dumps(envelope.to_json())).places)


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
                speedup_of(place.speedup),
                ", ".join(place.kernels) if place.kernels else "it does not tell",
            )
            for place in rows
        ),
        tones=tuple(("", "good" if place.agrees else "bad", "", "", TONES.get(place.status, ""), "") for place in rows),
    )


def apart(place: IsaPlace) -> str:
    """``3.1%``."""
    return "< 0.01%" if place.difference < 5e-5 else formatting.percent(place.difference, 2)


def where(place: Place) -> str:
    """``2 threads, batch 16, input size 48, beside a busy neighbour``."""
    words = [f"{place.threads} thread{'s' * (place.threads > 1)}", f"batch {place.batch_size}"]
    words += [f"input size {place.input_size}"] if place.input_size else []
    words += ["beside a busy neighbour"] if place.neighbour else []
    return ", ".join(words)
