"""What to do next, by status."""

import shlex
from decimal import ROUND_FLOOR, Decimal

from pydantic import JsonValue

from reports.document import NextStep
from reports.floors import is_below_floor
from reports.formatting import percent, plain, points, requested, speedup
from reports.records import ComparisonFile, ComparisonRow, LatencyTableFile, Run, TrainingFile
from reports.samples import ratio
from reports.sections.environment import command_text
from reports.sections.limits import fastest_speedup, gains_nowhere, holds_request, out_of_reach, typed, what_binds
from reports.sections.quality import accuracy_drop, digits_of

LARGE_DROP = 0.01
DEFAULT_EPOCHS = 6
LEAST = 1.1
"""A smaller speedup is not worth asking for."""
QUANTISER = "nncf int8"
"""How the row of a comparison begins that needed no search."""
OPTIONAL = {ComparisonFile.FILE, TrainingFile.FILE}
"""Files that a finished run need not have."""

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
            steps += [_lost_too_much(run)] if _is_too_low(run) else _when_certified(run)
        case "missed":
            steps += _when_missed(run)
        case "inconclusive":
            steps.append(_when_inconclusive(run))
        case None:
            steps += _when_incomplete(run)
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
    steps += [_take_int8_alone(row) for row in run.comparison.rows if _is_better_int8(run, row)]
    if _accuracy_fell(run):
        steps.append(_win_accuracy_back(run))
    return tuple(steps)


def _is_better_int8(run: Run, row: ComparisonRow) -> bool:
    """Whether what a quantiser makes of the whole network is as fast and as accurate as what is certified."""
    ours, accuracy = run.certificate.measured_speedup, run.certificate.accuracy.compressed
    if ours is None or accuracy is None or row.measured_speedup is None or row.accuracy is None:
        return False
    return row.allocator.startswith(QUANTISER) and row.measured_speedup >= ours and row.accuracy >= accuracy


def _take_int8_alone(row: ComparisonRow) -> NextStep:
    return NextStep(
        "Consider int8 alone",
        f"{row.allocator} gives {speedup(row.measured_speedup)} at {percent(row.accuracy, 2)}, without a search: no "
        "less on both counts. Ask for more than that here, or deploy what nncf makes.",
    )


def _break_even(run: Run) -> float | None:
    return ratio(run.certificate.baseline.latency_s, run.certificate.best_dense.latency_s)


def _certify_again(run: Run) -> str:
    return shlex.join(["pipeline", "certify", run.name, "--again"])


def _certify_on_the_device(run: Run) -> NextStep:
    place = "the host of the latency table" if run.run.config.get("latency_table") else "the real device"
    return NextStep(
        f"Verify on {place}",
        "Copy the bundle to it and measure there; --host measures there from here.",
        shlex.join(["pipeline", "verify", f"{run.name}/bundle"]),
    )


def _when_incomplete(run: Run) -> list[NextStep]:
    if out_of_reach(run):
        return [NextStep("See what binds", what_binds(run)), _ask_for_less(run, fastest_speedup(run))]
    if gains_nowhere(run) and LatencyTableFile.FILE in run.absent:
        return [
            NextStep(
                "Choose a runtime that gains from zeros",
                "No runtime that was probed here does; DeepSparse can.",
                "pipeline runtimes install deepsparse",
            )
        ]
    missing = ", ".join(sorted(run.absent - OPTIONAL)) or "certificate with a status"
    return [
        NextStep(
            "Finish the run",
            f"The run folder has no {missing}. The same command takes up the run where it stopped.",
            command_text(run) or "pipeline run",
        )
    ]


def _ask_for_less(run: Run, reachable: float | None) -> NextStep:
    if reachable is None or typed(run, reachable) < LEAST:
        return NextStep("Ask for less", "Lower --speedup, or choose a runtime that gains more (see the probe).")
    tenths = float(Decimal(f"{typed(run, reachable):.6f}").quantize(Decimal("0.1"), ROUND_FLOOR))
    return NextStep("Ask for less", f"{requested(tenths)} is within reach.", again(run, "--speedup", f"{tenths:g}"))


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
        "Check the files against manifest.json, then the model's answers against the golden outputs in the bundle.",
        shlex.join(["pipeline", "verify", f"{run.name}/bundle"]),
    )
    return [deploy, verify]


def _is_too_low(run: Run) -> bool:
    """Whether the compressed network has less accuracy than was asked for."""
    accuracy, config = run.certificate.accuracy, run.run.config
    if accuracy.compressed is None or accuracy.dense is None:
        return False
    most, least = (_number(config.get(name)) for name in ("max_drop", "min_accuracy"))
    return is_below_floor(accuracy.compressed, accuracy.dense, most, least)


def _number(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _lost_too_much(run: Run) -> NextStep:
    accuracy, config = run.certificate.accuracy, run.run.config
    asked = [f"a loss of {config['max_drop']:g} points at most"] if config.get("max_drop") is not None else []
    asked += [f"at least {config['min_accuracy']:g}%"] if config.get("min_accuracy") is not None else []
    return NextStep(
        "Do not deploy: the accuracy is below the floor",
        f"{accuracy.metric} is {percent(accuracy.compressed, 2)}, dense {percent(accuracy.dense, 2)}; asked for was "
        f"{' and '.join(asked)}. Ask for a lower speedup, or allow more --epochs.",
        again(run, "--epochs", str(_more_epochs(run))),
    )


def _when_missed(run: Run) -> list[NextStep]:
    steps = [NextStep("See what binds", what_binds(run)), _ask_for_less(run, run.certificate.ci_low)]
    if not _accuracy_fell(run):
        steps.append(
            NextStep(
                "Train to the plan",
                "Gradual pruning keeps accuracy at sparser levels than post-training correction can.",
                again(run, "--epochs", str(_more_epochs(run))),
            )
        )
    return steps


def _when_inconclusive(run: Run) -> NextStep:
    certificate = run.certificate
    asked, noise, governor = certificate.requested_speedup, certificate.noise_floor, certificate.host.get("governor")
    said = "Stop other work and pin the threads to physical cores; without --certify-budget more is measured."
    if noise is not None:
        said += f" The baseline differs from itself by up to {percent(noise)}."
    if asked is not None and holds_request(run):
        said += f" The interval holds the requested {requested(asked)}: a little less would be certain."
    if isinstance(governor, str) and governor != "performance":
        said += f" Set the CPU governor to performance (it is {governor})."
    return NextStep("Quieten the machine and measure again", said, _certify_again(run))


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


OPTIONS = ("target", "speedup", "model", "weights", "data", "runtime", "batch_size", "threads", "epochs", "seed")


def again(run: Run, option: str, value: str) -> str:
    """The run's command with ``option`` set to ``value``, writing to a folder of its own."""
    words = _run_words(run)
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in (option, "--out"):
            kept.append(word)
        skip = not skip and word in (option, "--out")
    return shlex.join(["pipeline", "run", *kept, option, value])


def _run_words(run: Run) -> list[str]:
    """What followed ``pipeline run``; where a stage alone was called, the settings that say what it was for."""
    try:
        words = shlex.split(command_text(run))
    except ValueError:
        words = []
    if words[1:2] == ["run"]:
        return words[2:]
    given = ((name, run.run.config.get(name)) for name in OPTIONS)
    return [word for name, value in given if value for word in (f"--{name.replace('_', '-')}", plain(value))]
