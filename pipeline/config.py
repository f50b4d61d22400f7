"""Configuration: flags over a TOML file over the run folder's own record over defaults, checked once, here."""

import difflib
import json
import math
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.tracking.mlflow_server import parse_destination
from targets.errors import ConfigError

AUTO_RUNTIME = "auto"
FEWEST_SHIPPED = 30
WHERE = {"backend", "scheduler", "workers", "launcher"}
"""Settings that a run folder does not remember: a run that was begun here may go on elsewhere."""

NOT_OF_THE_RESULT = {"track", "precedence", *WHERE}
"""Settings that may differ from those of the run folder: they change nothing of what the run finds."""


class RunConfig(BaseModel):
    """Everything that decides a run's result, and where it is followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field("auto", description="preset (intel, amd, auto) or a target's TOML file")
    speedup: float = Field(
        description="requested speedup over the dense model on the same target, > 1",
        json_schema_extra={"exclusiveMinimum": 1},
    )
    baseline: Literal["dense", "best-dense"] = Field(
        "dense",
        description="what the speedup is over: dense in fp32 on the same runtime, or the fastest uncompressed network "
        "over all runtimes and precisions",
    )
    model: str | None = Field(None, description="NAME[:VARIANT], see `pipeline models list`; default: resnet:digits")
    weights: Path | None = Field(None, description="trained weights: .safetensors, .pt, .pth or a model's folder")
    data: Path | None = Field(None, description="data that the model takes, see `pipeline models list`")
    runtime: str | None = Field(
        None,
        description="runtime, or auto for the best plan that any installed one offers; default: DeepSparse where zeros "
        "gain in its probe (for evaluation only), else the one whose best family gains most",
    )
    batch_size: int | None = Field(None, description="inputs a run; default: the target's")
    threads: int | None = Field(None, description="threads; default: the physical cores this process may use")
    input_size: int | None = Field(
        None, description="pixels a side or tokens of one input; default: the target's, else the model's usual size"
    )
    precedence: bool | None = Field(
        None,
        description="measure ahead of every other process, which takes root; default: the target's, else on this "
        "host, once others keep its cores busy",
    )
    strict_target: bool = Field(False, description="stop (exit 7) when this host is not of the target's vendor")
    families: str | None = Field(
        None, description="ways to compress, such as channel,int8; default: all that the runtime gains from"
    )
    epochs: int = Field(0, ge=0, description="epochs of gradual pruning; 0: post-training correction only")
    max_drop: float | None = Field(
        None, ge=0, description="accuracy points that may be lost, such as 1.0; more is exit 4"
    )
    min_accuracy: float | None = Field(
        None, ge=0, le=100, description="percent of the metric that must be held, such as 87.5; less is exit 4"
    )
    rounds: int = Field(
        7,
        ge=1,
        le=50,
        description="rounds of solving, measuring and correcting, at most, to find the plan",
    )
    certify_budget: float | None = Field(
        None, gt=0, description="seconds after which a certificate's measuring ends as soon as it can"
    )
    certify_spread: float = Field(
        0.0, ge=0, description="seconds that a certificate's processes are spread over, where a machine drifts"
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")
    allocator: Literal["best", "spdy", "spdy-evolution", "surrogate", "dp", "uniform", "global-magnitude"] = Field(
        "best",
        description="what chooses every unit's level; best: spdy's plan or a plain one, whichever is nearest to the "
        "dense network once corrected",
    )
    criterion: Literal["obs", "magnitude"] = Field("obs", description="which weights go")
    channel_criterion: Literal["obs", "l1", "l2", "leverage", "pfp"] = Field(
        "obs", description="which channels go, where the family channel is used"
    )
    solver: Literal["auto", "least-squares", "blocked", "adaprune"] = Field(
        "auto", description="what the other weights become; adaprune: as SPDY's authors have it, for comparison"
    )
    plans: int | None = Field(
        None, ge=12, le=1000, description="plans measured for the latency table; default: 42 to 60, by the shapes"
    )
    latency_table: Path | None = Field(
        None, description="table of `pipeline profile --export`, instead of profiling; another host's makes a proxy"
    )
    levels: int = Field(42, ge=3, le=200, description="levels a unit, dense included")
    calibration_samples: int | None = Field(
        None,
        ge=16,
        description="training samples for statistics, search and correction; default: 1024, or all there are",
    )
    evaluations: int = Field(200, ge=1, description="candidate evaluations of the search, at most")
    layer_correction: Literal["none", "bias", "sequential"] = Field(
        "none", description="before outputs are matched, fit each layer's bias, or weights and bias, to dense outputs"
    )
    correction_passes: int = Field(30, ge=0, description="passes of output matching over the calibration set")
    correction_budget: float = Field(
        600.0, gt=0, description="seconds of learning in output matching, at most; large networks get fewer passes"
    )
    install: bool = Field(True, description="install DeepSparse's environment if it is missing and no runtime is named")
    compare: bool = Field(
        True, description="for the report, also correct and measure a uniform and a global-magnitude plan"
    )
    ship_sample: int = Field(
        0,
        ge=0,
        description="held-out samples (images, texts, pairs of sentences, questions) that the bundle carries with the "
        "right answers, so that `pipeline verify` scores the network on a device",
    )
    backend: Literal["here", "threading", "loky", "dask", "ray"] = Field(
        "here", description="where units and candidate plans are worked on, see docs/scaling.md"
    )
    scheduler: str | None = Field(
        None, description="of a dask or ray cluster, such as tcp://10.0.0.1:8786 (dask) or 10.0.0.1:6379 (ray)"
    )
    workers: int | None = Field(
        None, ge=1, description="threads or processes of --backend threading and loky, and of ray on this machine"
    )
    launcher: str | None = Field(
        None,
        description="command that starts the processes of --epochs, such as 'accelerate launch --num_processes 4', see "
        "docs/scaling.md; default: this process",
    )
    track: str | None = Field(None, description="follow the run live: mlflow or mlflow:URI, see docs/tracking.md")

    @field_validator("launcher")
    @classmethod
    def _launcher_is_a_command(cls, value: str | None) -> str | None:
        if value is not None and not shlex.split(value):
            raise ValueError("a launcher is a command, such as 'torchrun --standalone --nproc-per-node 2'")
        return value

    @field_validator("ship_sample")
    @classmethod
    def _sample_says_something(cls, value: int) -> int:
        if 0 < value < FEWEST_SHIPPED:
            raise ValueError(f"a sample of {value} says nothing about an accuracy: ship at least {FEWEST_SHIPPED}")
        return value

    @field_validator("speedup")
    @classmethod
    def _speedup_is_a_gain(cls, value: float) -> float:
        if not math.isfinite(value) or value <= 1:
            raise ValueError(f"a speedup is a finite number above 1, such as 2.5; got {value}")
        return value


def resolve(flags: Mapping[str, Any], file: Path | None, stored: Mapping[str, Any] | None) -> RunConfig:
    """The configuration of a run.

    Args:
        flags: what was typed; None where it was not.
        file: a TOML file with the same names.
        stored: the configuration that the run folder was made with; fills what neither flags nor file say.

    Raises:
        ConfigError: unknown or wrong values, or others than those of the run folder.
    """
    given = _read(file) | {name: value for name, value in flags.items() if value is not None}
    _check_names(given, file)
    if "speedup" not in given and not stored:
        raise ConfigError("How much faster? Say --speedup, for example --speedup 3.")
    try:
        remembered = {name: value for name, value in (stored or {}).items() if name not in WHERE}
        config = RunConfig(**(remembered | given))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(entry) for entry in error.errors())) from None
    if stored:
        check_same(config, RunConfig(**stored))
    if config.track:
        parse_destination(config.track)
    return config


def to_toml(config: RunConfig) -> str:
    """A file that asks for the same result: every setting that has a value, defaults too."""
    settings = config.model_dump(mode="json", exclude=NOT_OF_THE_RESULT)
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items() if value is not None
    ]
    return "\n".join(["# The same again: pipeline run --config THIS_FILE --out ANOTHER_FOLDER", *lines, ""])


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the configuration {file}: {error}") from None


def _check_names(given: Mapping[str, Any], file: Path | None) -> None:
    known = list(RunConfig.model_fields)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.replace("-", "_"), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}"
            raise ConfigError(f"Unknown setting {name!r} in {file}: {hint}")


def _explain(entry: Any) -> str:
    name = "--" + str(entry["loc"][0]).replace("_", "-") if entry["loc"] else "configuration"
    return f"{name}: {entry['msg'].removeprefix('Value error, ')} (got {entry['input']!r})"


def check_same(config: RunConfig, stored: RunConfig) -> None:
    """Refuse to go on with another configuration than a run folder's.

    Raises:
        ConfigError: names what differs.
    """
    now, before = (part.model_dump(exclude=NOT_OF_THE_RESULT) for part in (config, stored))
    different = [name for name in now if now[name] != before[name]]
    if different:
        changes = ", ".join(f"{name} {before[name]} → {now[name]}" for name in different)
        raise ConfigError(
            f"The run folder holds a run of another configuration ({changes}).\n"
            "Name another folder with --out, or repeat the folder's own settings to resume it."
        )
