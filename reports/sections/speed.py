"""How fast it is: latencies, speedups, sizes and the distributions behind them."""

import numpy as np

from reports.document import NOT_MEASURED, Chart, Column, Panel, Role, Section, Series, Table
from reports.formatting import (
    count,
    duration,
    file_size,
    interval,
    milliseconds,
    milliseconds_digits,
    percent,
    requested,
    speedup,
)
from reports.records import Certificate, ModelSide, ProcessSamples, Run
from reports.samples import Distribution, cumulative, distribution, positive, ratio
from reports.sections.layers import plan_precisions
from reports.sections.limits import asked_speedup
from reports.sections.tables import absent, table, text_or

FEW_PROCESSES = 12


def speed_section(run: Run) -> Section:
    """Latency of the three models, the speedups with their interval, and bytes."""
    certificate = run.certificate
    tables = [part for part in (_latencies(run), _speedups(run), _dense_times(run), _sizes(certificate)) if part.rows]
    text = [_batch_text(certificate)] if certificate.baseline.latency_s is not None else []
    if certificate.measured_speedup is None:
        text.append(absent("Speedup", certificate.FILE, run.absent))
    if certificate.supported_fraction is not None:
        share = percent(certificate.supported_fraction, 0)
        text.append(f"The runtime's own kernels run {share} of the compressed network's operations.")
    return Section("speed", "Speed and size", tuple(text), tuple(tables))


def _batch_text(certificate: Certificate) -> str:
    target = certificate.target
    threads = "" if target.threads is None else f" on {target.threads} thread{'s' if target.threads != 1 else ''}"
    batch = "one inference" if target.batch_size is None else f"one batch of {target.batch_size}"
    is_ahead = target.precedence if certificate.ran_ahead is None else certificate.ran_ahead
    ahead = " What measured ran ahead of other processes." if is_ahead else ""
    return f"Latency is the median time of {batch}{threads}, both models timed in turns.{ahead}"


def _latencies(run: Run) -> Table:
    certificate = run.certificate
    baseline_s, batch = certificate.baseline.latency_s, certificate.target.batch_size
    sides = [
        ("Baseline (dense)", certificate.baseline, 1.0 if baseline_s else None),
        ("Best dense", certificate.best_dense, ratio(baseline_s, certificate.best_dense.latency_s)),
        ("Compressed", certificate.compressed, certificate.measured_speedup),
    ]
    measured = [row for row in sides if row[1].latency_s is not None]
    digits = milliseconds_digits([side.latency_s for _, side, _ in measured])
    runtime = {"Compressed": certificate.baseline.runtime or certificate.target.runtime}
    precision = {"Compressed": plan_precisions(run.plan)}

    def throughput(side: ModelSide) -> str:
        per_second = ratio(float(batch), side.latency_s) if batch is not None else None
        return count(per_second)

    return table(
        "Latency of the models",
        measured,
        (
            (Column("Model", numeric=False), lambda row: row[0]),
            (Column("Runtime", numeric=False), lambda row: text_or(row[1].runtime or runtime.get(row[0]))),
            (Column("Precision", numeric=False), lambda row: text_or(row[1].precision or precision.get(row[0]))),
            (Column("Latency", "ms"), lambda row: milliseconds(row[1].latency_s, digits)),
            (Column("Throughput", "samples/s"), lambda row: throughput(row[1])),
            (Column("Speedup over baseline"), lambda row: speedup(row[2])),
        ),
    )


def _speedups(run: Run) -> Table:
    certificate, plan = run.certificate, run.plan
    predicted = certificate.predicted_speedup or plan.predicted_speedup
    rows = [
        ("Requested", requested(asked_speedup(run)), "what the run was asked for"),
        ("Predicted", speedup(predicted), "by the latency table, before measuring"),
        ("Measured", speedup(certificate.measured_speedup), "compressed against baseline, timed in turns"),
        (confidence_label(certificate), _interval_x(certificate), "where the true speedup lies, with that confidence"),
        ("Measured for", duration(certificate.span_s), "the interval speaks for the machine as it was in this time"),
        ("Noise floor", percent(certificate.noise_floor), "by how much the baseline may differ from itself (A/A run)"),
        ("Disturbed rounds", percent(certificate.disturbed_fraction), _disturbed(certificate)),
        ("Over best dense", speedup(certificate.speedup_over_best_dense), "against the fastest uncompressed model"),
    ]
    said = tuple(row for row in rows if row[1] != NOT_MEASURED)
    return Table("Speedup", (Column("Figure", numeric=False), Column("Value"), Column("Meaning", numeric=False)), said)


def _disturbed(certificate: Certificate) -> str:
    counted = "counted all the same, there being few others" if certificate.is_disturbed else "not counted"
    return f"the cores were apart, or something else had one: {counted}"


def _interval_x(certificate: Certificate) -> str:
    text = interval(certificate.ci_low, certificate.ci_high)
    return text if text == NOT_MEASURED else f"{text}x"


def confidence_label(certificate: Certificate) -> str:
    """``95% interval``, or ``Interval`` where the confidence is unknown."""
    return "Interval" if certificate.confidence is None else f"{100 * certificate.confidence:g}% interval"


def _dense_times(run: Run) -> Table:
    times = run.certificate.dense_times
    digits = milliseconds_digits([time.latency_s for time in times])
    return table(
        "Dense model by runtime",
        times,
        (
            (Column("Runtime", numeric=False), lambda time: text_or(time.runtime)),
            (Column("Precision", numeric=False), lambda time: text_or(time.precision)),
            (Column("Latency", "ms"), lambda time: milliseconds(time.latency_s, digits)),
        ),
    )


def _sizes(certificate: Certificate) -> Table:
    sizes = certificate.file_bytes
    pairs = [
        ("Dense ONNX file", sizes.dense_onnx),
        ("Compressed ONNX file (zeros stored)", sizes.compressed_onnx),
        ("Compressed weights, stored sparse", sizes.compressed_sparse),
    ]

    def share(row: tuple[str, float | None]) -> str:
        return percent(ratio(row[1], sizes.dense_onnx), 0)

    return table(
        "Size of the exported artifacts",
        [row for row in pairs if row[1] is not None],
        (
            (Column("Artifact", numeric=False), lambda row: row[0]),
            (Column("Size"), lambda row: file_size(row[1])),
            (Column("Bytes"), lambda row: count(row[1])),
            (Column("Of the dense file"), share),
        ),
    )


def latency_section(run: Run) -> Section:
    """Distributions of the raw latencies, and what every measuring process says."""
    processes = run.certificate.samples.processes
    pooled = {
        "Baseline": positive([s for p in processes for s in p.baseline_s]),
        "Baseline again (A/A)": positive([s for p in processes for s in p.null_s]),
        "Compressed": positive([s for p in processes for s in p.compressed_s]),
    }
    found = {name: stats for name, samples in pooled.items() if (stats := distribution(samples))}
    if not found:
        return Section(
            "latency",
            "Latency distributions",
            (absent("Raw latencies", run.certificate.FILE, run.absent),),
        )
    text = f"Computed from the raw samples of {len(processes)} measuring process{'es' if len(processes) != 1 else ''}."
    chart = _distribution_chart(processes, found)
    return Section(
        "latency",
        "Latency distributions",
        (text,),
        (*((chart,) if chart else ()), _distribution_table(found), _process_table(processes)),
    )


def _distribution_table(found: dict[str, Distribution]) -> Table:
    digits = milliseconds_digits([stats.p50_s for stats in found.values()])
    return table(
        "Latencies",
        list(found.items()),
        (
            (Column("Model", numeric=False), lambda row: row[0]),
            (Column("Samples"), lambda row: count(row[1].n)),
            (Column("p50", "ms"), lambda row: milliseconds(row[1].p50_s, digits)),
            (Column("p90", "ms"), lambda row: milliseconds(row[1].p90_s, digits)),
            (Column("p99", "ms"), lambda row: milliseconds(row[1].p99_s, digits)),
            (Column("Slowest", "ms"), lambda row: milliseconds(row[1].max_s, digits)),
            (Column("Interquartile range", "of p50"), lambda row: percent(row[1].spread)),
        ),
    )


def _process_table(processes: list[ProcessSamples]) -> Table:
    rows = [
        (number, _median(p.baseline_s), _median(p.compressed_s), _median(p.null_s))
        for number, p in enumerate(processes, start=1)
    ]
    digits = milliseconds_digits([row[1] for row in rows])
    return table(
        "Medians of each measuring process",
        rows,
        (
            (Column("Process"), lambda row: str(row[0])),
            (Column("Baseline", "ms"), lambda row: milliseconds(row[1], digits)),
            (Column("Compressed", "ms"), lambda row: milliseconds(row[2], digits)),
            (Column("Speedup"), lambda row: speedup(ratio(row[1], row[2]))),
            (Column("Baseline against itself"), lambda row: _difference(ratio(row[3], row[1]))),
        ),
    )


def _difference(quotient: float | None) -> str:
    if quotient is None:
        return NOT_MEASURED
    return percent(quotient - 1, 2)


def _median(samples_s: list[float | None]) -> float | None:
    samples = positive(samples_s)
    return float(np.median(samples)) if samples.size else None


def _distribution_chart(processes: list[ProcessSamples], found: dict[str, Distribution]) -> Chart | None:
    panels = []
    roles: tuple[tuple[str, Role], ...] = (("Baseline", "baseline"), ("Compressed", "compressed"))
    for name, role in roles:
        each = [positive(p.baseline_s if role == "baseline" else p.compressed_s) for p in processes]
        measured = [samples for samples in each if samples.size]
        if not measured:
            continue
        faint = measured if 1 < len(measured) <= FEW_PROCESSES else []
        series = [Series("", *cumulative(samples, steps=40), mark="steps", role="faint") for samples in faint]
        pooled = cumulative(np.concatenate(measured))
        series.append(Series("", *pooled, mark="steps", role=role))
        panels.append(Panel("latency (ms)", "runs below (%)", tuple(series), name, y_range=(0, 100)))
    if not panels:
        return None
    said = "; ".join(
        f"{name.lower()} p50 {milliseconds(stats.p50_s)} ms, p99 {milliseconds(stats.p99_s)} ms"
        for name, stats in found.items()
        if "A/A" not in name
    )
    return Chart(
        "latency",
        "Share of the runs below a latency",
        f"Cumulative distributions: {said}. Thin lines are single processes. "
        "Each panel has its own scale; the slowest 1% are left out of the picture.",
        tuple(panels),
    )
