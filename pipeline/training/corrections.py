"""Corrected plans in the run folder: what was corrected once is not corrected again."""

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.context import Run
from pipeline.models.checkpoints import write_weights
from pipeline.run_folder import digest, read_json, write_json
from pipeline.tracking.events import tell
from pipeline.tracking.facts import correction_facts
from pipeline.training.correction import PassRecord
from pipeline.training.recovery import CORRECTED, CORRECTION, TRAINING_CHECKPOINTS, OnPass, corrected_network
from profilers.latency_table import Choice

CHECKPOINT = ".pt"
"""How files end from which an interrupted correction goes on."""
FOLDER = "corrected"


class Corrections:
    """A run's corrected plans: their records, and their networks until one of them ships.

    Args:
        run: whose plans they are.
    """

    def __init__(self, run: Run) -> None:
        config = run.config
        self._run, self._folder = run, run.folder.file(FOLDER)
        how = (config.layer_correction, config.correction_passes, config.correction_budget, config.seed)
        self._key = digest(run.database_key, run.held_out_key, *how)

    def key(self, choice: Choice) -> str:
        """Of everything that the corrected plan depends on."""
        return digest("correct", self._key, choice)

    def record(self, choice: Choice) -> dict[str, Any]:
        """What the correction of a plan did, with its ``accuracy``."""
        path = self._path(choice, ".json")
        if not path.exists():
            self._make(choice)
            self._path(choice, CHECKPOINT).unlink(missing_ok=True)
        record: dict[str, Any] = read_json(path)
        return record

    def network(self, choice: Choice, on_pass: OnPass | None = None) -> nn.Module:
        """The corrected network, layers in int8 as they are stored; its record is kept beside it."""
        path = self._path(choice, ".safetensors")
        if not path.exists():
            write_weights(self._make(choice, on_pass).state_dict(), path)
            self._path(choice, CHECKPOINT).unlink(missing_ok=True)
        return self._run.network(path)

    def take(self, choice: Choice) -> None:
        """Make a plan's correction the run's: corrected.safetensors and correction.json; the other networks go."""
        run, path = self._run, self._path(choice, ".safetensors")

        def show(done: PassRecord) -> None:
            tell(run.tracker, correction_facts(done.number + 1, done.loss, done.block_error))

        write_weights(self.network(choice, show).state_dict(), run.folder.file(CORRECTED))
        write_json(run.folder.file(CORRECTION), self.record(choice))
        for other in self._folder.glob("*.safetensors"):
            if other != path:
                other.unlink()

    def _make(self, choice: Choice, on_pass: OnPass | None = None) -> nn.Module:
        self._folder.mkdir(exist_ok=True)
        plan, checkpoint = self._run.plan_of(choice), self._path(choice, CHECKPOINT)
        network, record = corrected_network(self._run, plan, on_pass, checkpoint)
        write_json(self._path(choice, ".json"), {"schema": 1, **record})
        return network

    def _path(self, choice: Choice, suffix: str) -> Path:
        return self._folder / f"{self.key(choice)[:16]}{suffix}"


def forget_corrections(run: Run) -> None:
    """Have a run's plan corrected, and trained, again."""
    run.folder.forget("correct")
    shutil.rmtree(run.folder.file(FOLDER), ignore_errors=True)
    for checkpoint in run.folder.path.glob(TRAINING_CHECKPOINTS):
        checkpoint.unlink()
