"""Gradual pruning in several processes, which the launchers of torch and accelerate start."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.config import resolve
from pipeline.context import Run
from pipeline.models.checkpoints import write_weights
from pipeline.training.recovery import trained_network
from targets.errors import ConfigError, RuntimeMissingError
from targets.levels import Level
from tests.opened_runs import opened_run

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(tmp_path: Path) -> None:
    networks = []
    for start, name in (([sys.executable], "one"), (TWO, "two")):
        file = tmp_path / f"{name}.safetensors"
        command = [*start, "-m", "tests.training.in_processes", file]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=200)
        networks.append(load_file(file))
    one, two = networks
    assert int((one["1.weight"] == 0).sum()) == round(0.6 * one["1.weight"].numel())
    assert [(int(network.pop("processes")), int(network.pop("rows"))) for network in networks] == [(1, 32), (2, 16)]
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = opened_run(tmp_path / "run", epochs=1, threads=1)
    corrected, (block, *_) = run.copy_of_dense(), [unit for unit in run.units if unit.cuts]
    with torch.no_grad():  # half of the channels that are read
        corrected.get_parameter(f"{block.cuts[0].consumer}.weight")[:, ::2] = 0
    write_weights(corrected.state_dict(), run.folder.file("corrected.safetensors"))
    return run


def launched(run: Run, launcher: str) -> tuple[torch.nn.Module, float]:
    run.config = run.config.model_copy(update={"launcher": launcher, "workers": 2})
    block = next(unit for unit in run.units if unit.cuts)
    network, record = trained_network(run, {block.name: Level("channel", 0.5)}, run.copy_of_dense())
    return network, record["accuracy"]


@pytest.mark.slow
def test_a_run_trains_in_the_processes_of_its_launcher(run: Run) -> None:
    network, accuracy = launched(run, " ".join(TWO))
    assert accuracy > 0.9
    dense = run.dense.state_dict()
    assert any(not torch.equal(tensor, dense[name]) for name, tensor in network.state_dict().items())
    block = next(unit for unit in run.units if unit.cuts)
    weight = network.get_parameter(f"{block.cuts[0].consumer}.weight")
    assert bool((weight[:, ::2] == 0).all())
    assert bool((weight[:, 1::2] != 0).all())


def test_a_launcher_that_fails_is_a_clear_error(run: Run) -> None:
    for launcher, code in (("false", 1), ("true", 0)):
        with pytest.raises(RuntimeMissingError, match=f"exit code {code} and no network"):
            launched(run, launcher)
    with pytest.raises(ConfigError, match="no program /no/launcher"):
        launched(run, "/no/launcher --x")


@pytest.mark.parametrize("launcher", ["", "  ", "accelerate 'launch"])
def test_what_is_no_command_is_refused_at_once(launcher: str) -> None:
    with pytest.raises(ConfigError, match="launcher"):
        resolve({"speedup": 2.5, "launcher": launcher}, None, None)
