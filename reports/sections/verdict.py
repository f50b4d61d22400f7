"""What a reader must know first: the headline, the figures beside it and what must not be overlooked."""

from reports.document import NOT_MEASURED, KeyFigure, Notice, Status
from reports.formatting import file_size, interval, milliseconds, percent, points, requested, speedup
from reports.records import Certificate, ModelSide, Run
from reports.samples import ratio
from reports.sections.limits import asked_speedup, fastest_speedup, holds_request, out_of_reach
from reports.sections.quality import accuracy_drop, digits_of
from reports.sections.speed import confidence_label


def status_of(run: Run) -> Status:
    """The certificate's status, ``incomplete`` without one."""
    return run.certificate.status or "incomplete"


def headline(run: Run) -> str:
    """One sentence that a release manager understands."""
    certificate = run.certificate
    if certificate.status is None:
        return _headline_incomplete(run)
    claim = f"{certificate.status}{' (proxy)' if certificate.proxy else ''}: {_measured(certificate)}"
    if certificate.status == "missed" and certificate.requested_speedup is not None:
        claim += f", {requested(certificate.requested_speedup)} was requested"
    if certificate.status == "inconclusive":
        claim += f", {_why_inconclusive(run)}"
    accuracy = certificate.accuracy
    if accuracy.compressed is None:
        return f"{claim}; accuracy {NOT_MEASURED}"
    against = f" against {percent(accuracy.dense)}" if accuracy.dense is not None else ""
    return f"{claim}; {accuracy.metric} {percent(accuracy.compressed)}{against}"


def _why_inconclusive(run: Run) -> str:
    asked, noise = run.certificate.requested_speedup, run.certificate.noise_floor
    floor = f" (noise floor {percent(noise)})" if noise is not None else ""
    if asked is not None and holds_request(run):
        return f"which may be more or less than the requested {requested(asked)}{floor}"
    return f"but the noise is too large to say so{floor}"


def _measured(certificate: Certificate) -> str:
    if certificate.measured_speedup is None:
        return f"speedup {NOT_MEASURED}"
    pace, against = ("faster", "than") if certificate.measured_speedup >= 1 else ("the speed", "of")
    text = f"{speedup(certificate.measured_speedup)} {pace}"
    if certificate.ci_low is not None and certificate.ci_high is not None:
        text += f" ({confidence_label(certificate)} {interval(certificate.ci_low, certificate.ci_high)})"
    return f"{text} {against} dense{_how(certificate.baseline)}"


def _how(side: ModelSide) -> str:
    precision = f" {side.precision}" if side.precision else ""
    return f"{precision} on {side.runtime}" if side.runtime else precision


def _headline_incomplete(run: Run) -> str:
    asked = asked_speedup(run)
    if out_of_reach(run) and asked is not None:
        fastest = speedup(fastest_speedup(run))
        return f"incomplete: {requested(asked)} is out of reach, the fastest plan of the latency table gives {fastest}"
    text = "incomplete: the run stopped before its speedup was certified"
    if run.plan.predicted_speedup is None:
        return f"{text}; speedup {NOT_MEASURED}"
    return f"{text}; its plan predicts {speedup(run.plan.predicted_speedup)}, speedup {NOT_MEASURED}"


def key_figures(run: Run) -> tuple[KeyFigure, ...]:
    """The numbers to see first."""
    certificate = run.certificate
    return (_speedup_figure(run), _best_dense_figure(certificate), _accuracy_figure(certificate), _size_figure(run))


def _speedup_figure(run: Run) -> KeyFigure:
    certificate = run.certificate
    details = []
    if certificate.baseline.latency_s is not None and certificate.compressed.latency_s is not None:
        before, after = certificate.baseline.latency_s, certificate.compressed.latency_s
        details.append(f"{milliseconds(before)} → {milliseconds(after)} ms")
    asked = asked_speedup(run)
    if asked is not None:
        details.append(f"{requested(asked)} requested")
    return KeyFigure("Speedup over baseline", speedup(certificate.measured_speedup), ", ".join(details))


def _best_dense_figure(certificate: Certificate) -> KeyFigure:
    best = certificate.best_dense
    detail = _how(best).strip()
    if best.latency_s is not None:
        detail = f"{milliseconds(best.latency_s)} ms, {detail}" if detail else f"{milliseconds(best.latency_s)} ms"
    return KeyFigure("Speedup over best dense", speedup(certificate.speedup_over_best_dense), detail)


def _accuracy_figure(certificate: Certificate) -> KeyFigure:
    accuracy, drop = certificate.accuracy, accuracy_drop(certificate.accuracy)
    detail = "" if accuracy.dense is None else f"dense {percent(accuracy.dense)}"
    if drop is not None:
        detail += f", {points(-drop, digits_of(accuracy.n))} points"
    return KeyFigure(accuracy.metric[:1].upper() + accuracy.metric[1:], percent(accuracy.compressed), detail)


def _size_figure(run: Run) -> KeyFigure:
    sizes, sparsity = run.certificate.file_bytes, run.certificate.compressed.sparsity
    details = []
    if sizes.compressed_sparse is not None:
        details.append(f"{file_size(sizes.compressed_sparse)} stored sparse")
    if (share := ratio(sizes.compressed_sparse, sizes.dense_onnx)) is not None:
        details.append(f"{percent(share, 0)} of dense")
    return KeyFigure("Sparsity", percent(sparsity), ", ".join(details))


def notices(run: Run) -> tuple[Notice, ...]:
    """Proxy, licence and everything that makes the numbers worth less than they look."""
    certificate = run.certificate
    found = [_proxy(run)] if certificate.proxy else []
    found += _warnings(certificate)
    if certificate.licence_note:
        found.append(Notice("licence", "Licence", certificate.licence_note))
    return tuple(found)


def _proxy(run: Run) -> Notice:
    certificate = run.certificate
    if run.run.config.get("latency_table"):
        return Notice(
            "proxy",
            "PROXY",
            "The plan is for the host of the latency table that was given, and was measured here. "
            "What it is worth there, `pipeline verify` says on that host.",
        )
    vendor, host = certificate.target.vendor, certificate.host.get("vendor")
    between = f" (measured: {host}, target: {vendor})" if isinstance(host, str) and vendor else ""
    return Notice(
        "proxy",
        "PROXY",
        f"Measured on a CPU of another kind than the target's{between}. "
        "Speedups and latencies can differ on the target: certify there.",
    )


def _warnings(certificate: Certificate) -> list[Notice]:
    found = []
    over_best = certificate.speedup_over_best_dense
    if over_best is not None and over_best < 1:
        found.append(
            Notice(
                "warning",
                "A dense model is faster",
                f"The best dense model ({_how(certificate.best_dense).strip() or 'of all runtimes'}, "
                f"{milliseconds(certificate.best_dense.latency_s)} ms) beats the compressed one on this CPU.",
            )
        )
    if fallback := (certificate.hidden_costs or {}).get("fallback"):
        found.append(Notice("warning", "Slow kernels", f"{fallback}."))
    found += [
        Notice("warning", "Disturbed", f"{text[:1].upper()}{text[1:]}.") for text in certificate.disturbances or ()
    ]
    if certificate.is_disturbed:
        found.append(
            Notice(
                "warning",
                "Disturbed all the time",
                "Hardly a round was undisturbed, so that all of them count: the speedup may be larger than it looks. "
                "Certify again when the machine is quieter or, as root, with --precedence.",
            )
        )
    asked, low = certificate.requested_speedup, certificate.ci_low
    if certificate.status == "certified" and asked is not None and low is not None and low < asked:
        found.append(
            Notice(
                "warning",
                "The certificate contradicts itself",
                f"It says certified, and its interval begins at {speedup(low)}, below the requested "
                f"{requested(asked)}. Certify again.",
            )
        )
    return found
