"""The files of a run folder, as far as a report needs them.

Everything may be absent, since a run may have stopped at any stage: an absent file reads like one without
fields, an absent, null or non-finite number is None, and nothing turns into zero on the way.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from reports.errors import USAGE, ReportError

SCHEMA = 1


LARGEST = 10**15
"""Nothing that is measured here comes near it, in seconds, bytes, samples or weights."""


def _number_or_none(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if abs(value) > LARGEST:
        raise ValueError("the number is too large to have been measured")
    return value


Number = Annotated[float | None, AfterValidator(_number_or_none)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Text = str | None
Facts = dict[str, JsonValue]


class Record(BaseModel):
    """A JSON object whose fields may all be absent; null means absent."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class ModelSide(Record):
    """One model of a certificate: the baseline, the compressed one or the best dense."""

    runtime: Text = None
    precision: Text = None
    latency_s: Number = None
    sparsity: Number = None


class FurtherMetric(Record):
    """A metric that is usually given beside the main one."""

    dense: Number = None
    compressed: Number = None


class Accuracy(Record):
    """Accuracy on the held-out data; the interval is of the difference compressed − dense."""

    metric: str = "accuracy"
    dense: Number = None
    compressed: Number = None
    ci_low: Number = None
    ci_high: Number = None
    n: Number = None
    others: dict[str, FurtherMetric] = {}


class TargetFacts(Record):
    """What was deployed on."""

    name: Text = None
    vendor: Text = None
    runtime: Text = None
    threads: Count | None = None
    batch_size: Count | None = None
    precedence: bool | None = None


class ProcessSamples(Record):
    """Raw latencies of one measuring process in seconds; ``null_s`` times the baseline a second time."""

    baseline_s: list[Number] = []
    compressed_s: list[Number] = []
    null_s: list[Number] = []


class Samples(Record):
    """Raw latencies of every measuring process."""

    processes: list[ProcessSamples] = []


class FileBytes(Record):
    """Sizes of the exported artifacts in bytes."""

    dense_onnx: Number = None
    compressed_onnx: Number = None
    compressed_sparse: Number = None


class DeploymentFacts(Record):
    """What one network costs in a process of its own; ``energy_j`` is that of the CPU package, a run."""

    p50_s: Number = None
    p90_s: Number = None
    p99_s: Number = None
    first_inference_s: Number = None
    compile_s: Number = None
    peak_rss_bytes: Number = None
    energy_j: Number = None
    samples: Count | None = None


class Certificate(Record):
    """The statement of a measured speedup."""

    FILE: ClassVar[str] = "certificate.json"

    status: Literal["certified", "missed", "inconclusive"] | None = None
    requested_speedup: Number = None
    predicted_speedup: Number = None
    measured_speedup: Number = None
    ci_low: Number = None
    ci_high: Number = None
    confidence: Number = None
    noise_floor: Number = None
    span_s: Number = None
    disturbed_fraction: Number = None
    is_disturbed: bool = False
    baseline: ModelSide = ModelSide()
    compressed: ModelSide = ModelSide()
    best_dense: ModelSide = ModelSide()
    speedup_over_best_dense: Number = None
    accuracy: Accuracy = Accuracy()
    host: Facts = {}
    target: TargetFacts = TargetFacts()
    proxy: bool = False
    licence_note: Text = None
    versions: Facts = {}
    supported_fraction: Number = None
    dense_times: list[ModelSide] = []
    deployment: dict[str, DeploymentFacts] = {}
    disturbances: list[str] | None = None
    ran_ahead: bool | None = None
    hidden_costs: dict[str, str] | None = None
    samples: Samples = Samples()
    file_bytes: FileBytes = FileBytes()


class LevelRecord(Record):
    """One way to compress one unit."""

    family: str = "dense"
    amount: Number = None
    precision: Text = None


class PlannedUnit(Record):
    """One unit of a plan, with its predicted seconds dense and at the chosen level."""

    name: str = ""
    kind: Text = None
    shape: list[Count] | None = None
    parameters: Count | None = None
    level: LevelRecord = LevelRecord()
    prunable: bool = True
    dense_s: Number = None
    seconds: Number = None
    error: Number = None


class Round(Record):
    """One round of the closed loop: what was promised and measured."""

    round: Count | None = None
    predicted_speedup: Number = None
    measured_speedup: Number = None
    loss: Number = None


class Effort(Record):
    """What the search's evaluations took and spared: seconds of its parts, and shares of work not done."""

    plans: Count | None = None
    plans_a_second: Number = None
    batches_run: Count | None = None
    batches_whole: Count | None = None
    blocks_run: Count | None = None
    blocks_reused: Count | None = None
    seconds: Number = None
    network_s: Number = None
    stitching_s: Number = None
    loss_s: Number = None
    solving_s: Number = None
    preparing_s: Number = None


class SearchRecord(Record):
    """What the search did; trace rows are evaluation, loss, incumbent's loss, phase and more."""

    evaluations: Count | None = None
    seconds: Number = None
    effort: Effort = Effort()
    trace: list[list[Number | str]] = []


class ContestRow(Record):
    """One of the plans that met once they were corrected."""

    allocator: str = ""
    loss: Number = None


class PlanFile(Record):
    """The plan: unit → level."""

    FILE: ClassVar[str] = "plan.json"

    allocator: Text = None
    contest: list[ContestRow] = []
    requested_speedup: Number = None
    predicted_speedup: Number = None
    units: list[PlannedUnit] = []
    rounds: list[Round] = []
    search: SearchRecord = SearchRecord()


class FitError(Record):
    """Relative error |predicted − measured| / measured of the latency table on plans that its fit had not seen."""

    median: Number = None
    mean: Number = None
    worst: Number = None
    n: Count | None = None


class TableMeasurement(Record):
    """One plan that was measured, and what the latency table says of it."""

    label: str = "measured plans"
    predicted_s: Number = None
    measured_s: Number = None


class LatencyTableFile(Record):
    """Seconds of every unit at every level, ``seconds`` [units][levels].

    The closed loop writes the table that it corrected beside the first one; the plan's times are from that one.
    """

    FILE: ClassVar[str] = "latency_table.json"
    CORRECTED: ClassVar[str] = "latency_table_corrected.json"

    fixed_s: Number = None
    dense_s: Number = None
    seconds: list[list[Number]] = []
    fit_error: FitError = FitError()
    measurements: list[TableMeasurement] = []


class ComparisonRow(Record):
    """One allocator's plan at about the same measured latency."""

    allocator: str = ""
    measured_speedup: Number = None
    accuracy: Number = None
    correction: Text = None
    sparsity: Number = None
    is_ours: bool = False


class ComparisonFile(Record):
    """The plan against other allocators."""

    FILE: ClassVar[str] = "comparison.json"

    rows: list[ComparisonRow] = []
    unreachable: dict[str, str] = {}


class BaselineFile(Record):
    """Where the request is over the best dense network: what it comes to over dense in fp32 on the run's runtime."""

    FILE: ClassVar[str] = "baseline.json"

    speedup: Number = None


class SpeedupInterval(Record):
    """A measured speedup."""

    value: Number = None
    low: Number = None
    high: Number = None


class EnvelopePlace(Record):
    """One way to use the network, and the speedup there; none where the runtime cannot run it so."""

    threads: Count = 0
    batch_size: Count = 0
    neighbour: bool = False
    status: str = ""
    speedup: SpeedupInterval | None = None
    input_size: Count | None = None


class EnvelopeFile(Record):
    """The operating envelope of the run's bundle."""

    FILE: ClassVar[str] = "bundle.envelope.json"

    places: list[EnvelopePlace] = []


class HistoryPoint(Record):
    """One point of a correction or a training."""

    step: Number = None
    epoch: Number = None
    loss: Number = None
    accuracy: Number = None


class CorrectionFile(Record):
    """Post-training correction; ``accuracy`` is that on held-out data afterwards."""

    FILE: ClassVar[str] = "correction.json"

    accuracy: Number = None
    history: list[HistoryPoint] = []


class TrainingFile(Record):
    """Gradual pruning; ``accuracy`` is that on held-out data afterwards. If correction alone is better, that ships."""

    FILE: ClassVar[str] = "training.json"

    accuracy: Number = None
    ships: bool = True
    history: list[HistoryPoint] = []


class ProbeRow(Record):
    """What a runtime gains on one synthetic operation with one share of a family removed."""

    operation: str = ""
    family: str = "unstructured"
    sparsity: Number = None
    speedup: Number = None


class ProbedRuntime(Record):
    """What one runtime can speed up; ``promise`` is the best operation's speedup at 90% to 99% sparsity."""

    name: str = ""
    version: Text = None
    rows: list[ProbeRow] = []
    best_speedup: Number = None
    promise: Number = None
    gains: bool | None = None


class CapabilityFile(Record):
    """What each runtime on this CPU can speed up at all."""

    FILE: ClassVar[str] = "capability.json"

    runtimes: list[ProbedRuntime] = []


class RunFile(Record):
    """How the run was asked for and how long its stages took."""

    FILE: ClassVar[str] = "run.json"

    config: Facts = {}
    stage_seconds: dict[str, Number] = {}
    stage_peak_bytes: dict[str, Number] = {}
    versions: Facts = {}
    command: str | list[str] | None = None
    host: Facts = {}


@dataclass(frozen=True, slots=True)
class Run:
    """Every file of a run folder, and the names of those that are not there."""

    name: str
    certificate: Certificate
    plan: PlanFile
    latency_table: LatencyTableFile
    comparison: ComparisonFile
    baseline: BaselineFile
    correction: CorrectionFile
    training: TrainingFile
    capability: CapabilityFile
    run: RunFile
    envelope: EnvelopeFile
    absent: frozenset[str]


class _Header(BaseModel):
    version: int = Field(alias="schema", strict=True)


FILES: tuple[str, ...] = tuple(
    kind.FILE
    for kind in (
        Certificate,
        PlanFile,
        LatencyTableFile,
        ComparisonFile,
        CorrectionFile,
        TrainingFile,
        CapabilityFile,
        RunFile,
        EnvelopeFile,
    )
)


def read_run(run_folder: Path) -> Run:
    """What ``run_folder`` holds.

    Raises:
        ReportError: the folder is missing or holds no file of a run (exit code 2), or a file is broken,
            incomplete or of a newer version (exit code 5).
    """
    if not run_folder.is_dir():
        raise ReportError(f"There is no run folder {run_folder}. Give the folder that `pipeline run` wrote.", USAGE)
    absent = frozenset(name for name in FILES if not (run_folder / name).exists())
    if len(absent) == len(FILES):
        raise ReportError(
            f"{run_folder} holds no file of a run ({', '.join(FILES)}). Give the folder that `pipeline run` wrote.",
            USAGE,
        )
    corrected = (run_folder / LatencyTableFile.CORRECTED).exists()
    return Run(
        name=run_folder.resolve().name,
        certificate=_read(run_folder, Certificate, Certificate.FILE),
        plan=_read(run_folder, PlanFile, PlanFile.FILE),
        latency_table=_read(
            run_folder, LatencyTableFile, LatencyTableFile.CORRECTED if corrected else LatencyTableFile.FILE
        ),
        comparison=_read(run_folder, ComparisonFile, ComparisonFile.FILE),
        baseline=_read(run_folder, BaselineFile, BaselineFile.FILE),
        correction=_read(run_folder, CorrectionFile, CorrectionFile.FILE),
        training=_read(run_folder, TrainingFile, TrainingFile.FILE),
        capability=_read(run_folder, CapabilityFile, CapabilityFile.FILE),
        run=_read(run_folder, RunFile, RunFile.FILE),
        envelope=_read(run_folder, EnvelopeFile, EnvelopeFile.FILE),
        absent=absent,
    )


R = TypeVar("R", bound=Record)


def _read(run_folder: Path, kind: type[R], name: str) -> R:
    path = run_folder / name
    if not path.exists():
        return kind()
    try:
        content = path.read_bytes()
        version = _Header.model_validate_json(content).version
        if version > SCHEMA:
            raise ReportError(
                f"{path} has schema {version}, and this release reads {SCHEMA}: a newer release wrote it. "
                "Make the report with that release."
            )
        return kind.model_validate_json(content)
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValidationError as error:
        raise ReportError(f"{path} {_what_is_wrong(error)} Repeat the stage that writes it.") from error


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"is not valid JSON, it may have been cut off ({first['ctx']['error']})."
    place = ".".join(str(part) for part in first["loc"])
    return f"is altered or broken: {place or 'the whole'}: {first['msg'][:1].lower()}{first['msg'][1:]}."
