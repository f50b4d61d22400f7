"""What to do next, by status."""

import shlex
from decimal import ROUND_FLOOR, Decimal

from reports.document import NextStep
from reports.formatting import milliseconds, percent, points, requested, speedup
from reports.records import Run
from reports.samples import ratio, total
from reports.sections.environment import command_text
from reports.sections.quality import accuracy_drop, digits_of

LARGE_DROP = 0.01
DEFAULT_EPOCHS = 6

DEPLOY: dict[str, str] = {
    "deepsparse": """\
from deepsparse import Engine

engine = Engine("model.onnx", batch_size={batch}, num_cores={threads})
outputs = engine.run([images])""",
    "openvino": """\
import openvino

settings = {{"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": {threads}, "NUM_STREAMS": 1}}
model = openvino.Core().compile_model("model.xml", "CPU", settings)
outputs = model(images)""",
    "onnxruntime": """\
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
outputs = session.run(None, {{session.get_inputs()[0].name: images}})""",
}


def next_steps(run: Run) -> tuple[NextStep, ...]:
    """At least one thing to do, the most pressing first."""
    certificate = run.certificate
    steps: list[NextStep] = []
    if certificate.proxy:
        steps.append(_certify_on_the_device(run))
    match certificate.status:
        case "certified":
            steps += _when_certified(run)
        case "missed":
            steps += _when_missed(run)
        case "inconclusive":
            steps.append(_when_inconclusive(run))
        case None:
            steps.append(_resume(run))
    over_best = certificate.speedup_over_best_dense
    if over_best is not None and over_best < 1:
        best = certificate.best_dense
        name = " ".join(part for part in (best.runtime, best.precision) if part) or "best dense"
        steps.append(
            NextStep(
                "Consider the dense model",
                f"The {name} model is faster than the compressed one and as accurate as its precision allows. "
                f"Deploy it, or ask for more than {speedup(_break_even(run))} over the baseline.",
            )
        )
    if _accuracy_fell(run):
        steps.append(_win_accuracy_back(run))
    return tuple(steps)


def _break_even(run: Run) -> float | None:
    return ratio(run.certificate.baseline.latency_s, run.certificate.best_dense.latency_s)


def _folder(run: Run) -> str:
    return shlex.quote(run.name)


def _certify_on_the_device(run: Run) -> NextStep:
    return NextStep(
        "Certify on the real device",
        "Copy the run folder to a machine with the target's CPU and certify there.",
        f"pipeline certify {_folder(run)}",
    )


def _resume(run: Run) -> NextStep:
    missing = ", ".join(sorted(run.absent)) or "a certificate"
    return NextStep(
        "Finish the run",
        f"The run folder has no {missing}. The same command takes up the run where it stopped.",
        command_text(run) or "pipeline run",
    )


def _when_certified(run: Run) -> list[NextStep]:
    target = run.certificate.target
    runtime = target.runtime or run.certificate.baseline.runtime or ""
    code = DEPLOY.get(runtime, "")
    known = code and target.batch_size is not None and target.threads is not None
    snippet = code.format(batch=target.batch_size, threads=target.threads) if known else ""
    settings = "Keep the batch size and the threads of the certificate: the speedup holds for these."
    licence = " Mind the licence above first." if run.certificate.licence_note else ""
    deploy = NextStep("Deploy", f"Ship the bundle folder.{licence} {settings}", snippet)
    verify = NextStep(
        "Verify on the device",
        "Compare the files with the hashes in manifest.json and the model's answers with the golden outputs of the "
        "bundle, then measure there.",
        f"pipeline certify {_folder(run)}",
    )
    return [deploy, verify]


def _when_missed(run: Run) -> list[NextStep]:
    certificate = run.certificate
    steps = [NextStep("See what binds", what_binds(run))]
    low = certificate.ci_low
    if low is not None and low > 1.1:
        reachable = float(Decimal(f"{low:.6f}").quantize(Decimal("0.1"), ROUND_FLOOR))
        steps.append(
            NextStep(
                "Ask for less",
                f"This measurement would have certified {requested(reachable)}.",
                again(run, "--speedup", f"{reachable:g}"),
            )
        )
    else:
        steps.append(NextStep("Ask for less", "Lower --speedup, or choose a runtime that gains more (see the probe)."))
    if not _accuracy_fell(run):
        steps.append(
            NextStep(
                "Train to the plan",
                "Gradual pruning keeps accuracy at sparser levels than post-training correction can.",
                again(run, "--epochs", str(_more_epochs(run))),
            )
        )
    return steps


def what_binds(run: Run) -> str:
    """Which part of the time no level can take away, as far as the latency table and the plan say."""
    table = run.latency_table
    fastest = [min(known) if (known := [s for s in row if s is not None]) else None for row in table.seconds]
    kept = {unit.name: unit.dense_s for unit in run.plan.units if not unit.prunable}
    floor_s = total([table.fixed_s, *_with_kept_dense(run, fastest)]) if fastest else None
    parts = []
    if table.fixed_s is not None:
        of_all = ratio(table.fixed_s, run.certificate.compressed.latency_s)
        share = f", {percent(of_all, 0)} of the compressed latency" if of_all is not None else ""
        parts.append(f"Outside of all units a fixed {milliseconds(table.fixed_s)} ms passes{share}.")
    if (kept_s := total(list(kept.values()))) is not None:
        parts.append(f"Units kept dense ({', '.join(kept)}) take {milliseconds(kept_s)} ms.")
    if (best := ratio(table.dense_s, floor_s)) is not None:
        parts.append(f"With every other unit at its fastest level, the latency table predicts {speedup(best)}.")
    return " ".join(parts) or "The run has no latency table that would say what binds."


def _with_kept_dense(run: Run, fastest: list[float | None]) -> list[float | None]:
    units = run.plan.units
    if len(units) != len(fastest):
        return fastest
    return [best if unit.prunable else unit.dense_s for unit, best in zip(units, fastest, strict=True)]


def _when_inconclusive(run: Run) -> NextStep:
    noise = run.certificate.noise_floor
    said = f" The baseline differs from itself by {percent(noise)}." if noise is not None else ""
    governor = run.certificate.host.get("governor")
    fix = f" Set the CPU governor to performance (it is {governor})." if governor not in (None, "performance") else ""
    return NextStep(
        "Quieten the machine and measure again",
        f"Stop other work, pin the threads to physical cores, and take more rounds.{said}{fix}",
        f"pipeline certify {_folder(run)}",
    )


def _accuracy_fell(run: Run) -> bool:
    drop = accuracy_drop(run.certificate.accuracy)
    return drop is not None and drop > LARGE_DROP


def _win_accuracy_back(run: Run) -> NextStep:
    accuracy = run.certificate.accuracy
    drop = accuracy_drop(accuracy) or 0.0
    return NextStep(
        "Win accuracy back",
        f"{accuracy.metric[:1].upper()}{accuracy.metric[1:]} changes by {points(-drop, digits_of(accuracy.n))} points. "
        "Gradual pruning with distillation can win some of it back; at a lower --speedup less is lost.",
        again(run, "--epochs", str(_more_epochs(run))),
    )


def _more_epochs(run: Run) -> int:
    epochs = run.run.config.get("epochs")
    return 2 * epochs if isinstance(epochs, int) and epochs > 0 else DEFAULT_EPOCHS


def again(run: Run, option: str, value: str) -> str:
    """The run's command with ``option`` set to ``value``, writing to a folder of its own."""
    try:
        words = shlex.split(command_text(run))
    except ValueError:
        words = []
    kept: list[str] = []
    skip = False
    for word in words[1:] or ["run"]:
        if not skip and word.partition("=")[0] not in (option, "--out"):
            kept.append(word)
        skip = not skip and word in (option, "--out")
    return shlex.join(["pipeline", *kept, option, value])
