"""Gradual pruning of a run: in this process, or in those of a launcher on several GPUs or hosts (docs/scaling.md).

The prune stage writes the job into the run folder and starts the launcher with this module; on further hosts, which see
the same run folder, a user starts it alike:

    accelerate launch --config_file cluster.yaml --machine_rank 1 -m pipeline.training.gradual_training RUN_FOLDER
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.backends.launcher import find_launcher, run_launcher
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.models.checkpoints import write_weights
from pipeline.run_folder import RunFolder, read_json, write_json
from pipeline.setup import prepare
from pipeline.tracking.events import tell
from pipeline.tracking.facts import training_facts
from pipeline.training.gradual import Goal, GradualSettings, TrainingProgress, TrainingRecord, gradual_prune
from pipeline.training.masks import column_masks, sparsity
from targets.errors import ConfigError, RuntimeMissingError

JOB, RECORD, NETWORK = "training-job.json", "training-record.json", "trained.safetensors"
"""What goes to launched processes and what comes from them."""
ELSEWHERE = {
    "target": "auto",
    "runtime": "onnxruntime",
    "families": None,
    "threads": None,
    "strict_target": False,
    "precedence": None,
}
"""Settings of a process that only trains, on a host that is not the target."""


def train(run: Run, student: nn.Module, settings: GradualSettings, goal: Goal, checkpoint: Path) -> TrainingRecord:
    """Gradual pruning of ``student``, in place, with progress."""
    with run.reporter.task("training", 1) as task:

        def show(at: TrainingProgress) -> None:
            note = f"epoch {at.epoch + 1}, loss {at.loss:.3f}, accuracy {at.accuracy:.1%}, sparsity {at.sparsity:.0%}"
            task.update(at.step, note, at.steps)
            if at.step % (at.steps // settings.epochs) == 0:  # the averages are those of a whole epoch
                tell(run.tracker, training_facts(at.epoch, at.loss, at.accuracy, at.sparsity))

        return gradual_prune(
            student,
            run.dense,
            goal,
            run.splits.train,
            run.adapter.training_loss,
            run.adapter.training_score,
            settings,
            checkpoint,
            show,
            run.adapter.blocks(student),
        )


def goal_of(sparsities: Mapping[str, float], structured: Sequence[str], corrected: nn.Module) -> Goal:
    """What training aims at: zeros of structured layers stay those of the corrected network, others may move.

    Args:
        sparsities: layer → fraction of zeros.
        structured: those layers among them that lose whole columns.
        corrected: network with the plan's zeros.
    """
    planned = column_masks(corrected, structured)
    return Goal({**sparsities, **{name: sparsity({name: mask}) for name, mask in planned.items()}}, planned)


def train_launched(
    run: Run,
    launcher: str,
    settings: GradualSettings,
    sparsities: Mapping[str, float],
    structured: Sequence[str],
    checkpoint: Path,
) -> tuple[nn.Module, dict[str, Any]]:
    """The same in a launcher's processes; the network and the record, as `TrainingRecord` in plain data.

    Args:
        sparsities: as `goal_of` takes.
        structured: likewise, the corrected network lying in the run folder.

    Raises:
        RuntimeMissingError: the launcher failed, or ended without a result.
    """
    job = {
        "settings": asdict(settings),
        "sparsities": dict(sparsities),
        "structured": list(structured),
        "checkpoint": checkpoint.name,
        "input_size": run.target.input_size,
    }
    write_json(run.folder.file(JOB), job)
    record, network = run.folder.file(RECORD), run.folder.file(NETWORK)
    record.unlink(missing_ok=True)  # of another plan
    command = [*find_launcher(launcher), "-m", "pipeline.training.gradual_training", str(run.folder.path.resolve())]
    run.reporter.say(f"training by: {shlex.join(command)}")
    code = run_launcher(command)
    if code or not record.exists():
        kept = " Its last checkpoint is kept: the same command goes on from there." if checkpoint.exists() else ""
        raise RuntimeMissingError(
            f"The training that --launcher started ended with exit code {code} and no network; what it said stands "
            f"above.{kept} Without --launcher the training runs in this process."
        )
    return run.network(network), read_json(record)


def main(folder: Path) -> None:
    """One of the launched processes; the first one leaves network and record in the run folder.

    Raises:
        ConfigError: the folder holds no job.
    """
    run_folder = RunFolder(folder)
    stored = run_folder.stored_config()
    if stored is None or not run_folder.file(JOB).exists():
        raise ConfigError(f"{folder} holds no training: the prune stage of a run with --launcher writes it.")
    job = read_json(run_folder.file(JOB))
    here = {"backend": "here", "scheduler": None, "workers": None, "launcher": None, "track": None, "install": False}
    config = RunConfig.model_validate({**stored, **ELSEWHERE, **here, "input_size": job["input_size"]})
    is_first = os.environ.get("RANK", "0") == "0"
    run = prepare(config, run_folder, Reporter(quiet=not is_first))
    settings = GradualSettings(**job["settings"])
    goal = goal_of(job["sparsities"], job["structured"], run.network(run_folder.file("corrected.safetensors")))
    student = run.copy_of_dense()
    record = train(run, student, settings, goal, run_folder.file(job["checkpoint"]))
    if is_first:
        write_weights(student.state_dict(), run_folder.file(NETWORK))
        write_json(run_folder.file(RECORD), asdict(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
