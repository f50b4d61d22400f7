"""docs/your-model.md works as it is written."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.calibration_set import draw_calibration_set
from calibration.statistics import collect_statistics
from pipeline.cli import cli
from pipeline.exporting.export import PlanPatcher, assert_zeros_survive, export_onnx
from pipeline.exporting.parity import check_parity
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.training.gradual import Goal, GradualSettings, gradual_prune
from targets.levels import Level

PAGE = (Path(__file__).parents[1] / "docs" / "your-model.md").read_text()
BLOCKS = re.findall(r"^```python\n# (\S+\.py)(?:, continued)?\n([\s\S]*?)^```", PAGE, re.MULTILINE)
(COMMAND,) = re.findall(r"^    (pipeline run .*)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page's files in the working directory, with the example made."""
    folder = tmp_path_factory.mktemp("own")
    for name, code in BLOCKS:
        with (folder / name).open("a") as file:
            file.write(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        exec(compile((folder / "make_example.py").read_text(), "make_example.py", "exec"), {})
        yield folder
    sys.modules.pop("digits_net", None)


@pytest.fixture(scope="module")
def loaded(written):
    options = cli.commands["run"].make_context("run", shlex.split(COMMAND)[2:]).params
    adapter = get_adapter(options["model"])
    data = adapter.load_data(written / options["data"], None, None)
    return adapter, adapter.load(written / options["weights"], data), data


def test_the_adapter_loads_evaluates_and_calibrates(loaded):
    adapter, network, data = loaded
    score = adapter.evaluate(torch_predict(adapter.deployed(network), adapter.feeds), data)
    assert score.value > 0.9
    drawn = draw_calibration_set(data, 100, seed=0)
    inputs = torch.from_numpy(drawn.samples(data.train)[:])
    units = adapter.units(network, inputs[:1])
    assert [unit.prunable for unit in units] == [True, True, False]
    ((_, found),) = collect_statistics(network, [units[1].name], [inputs])
    assert found.hessian.shape == (512, 512)


def test_its_graph_keeps_zeros_and_says_what_torch_says(loaded, tmp_path):
    adapter, network, data = loaded
    inputs = data.test.inputs(np.arange(8))
    feeds = adapter.feeds(inputs)
    units = adapter.units(network, torch.from_numpy(inputs[:1]))
    export_onnx(adapter.deployed(network), feeds, tmp_path / "model.onnx")
    assert assert_zeros_survive(tmp_path / "model.onnx", units, network).keys() == {unit.name for unit in units}
    check_parity(torch_predict(adapter.deployed(network), adapter.feeds)(inputs), tmp_path / "model.onnx", feeds)
    PlanPatcher(tmp_path / "model.onnx", units).write({units[1].name: Level("unstructured", 0.9)}, tmp_path / "90.onnx")


def test_it_is_pruned_gradually(loaded):
    adapter, dense, data = loaded
    network = adapter.load(Path("digits.pt"), data)
    recipe = adapter.recipe
    settings = GradualSettings(epochs=3, batch_size=recipe.training_batch, peak_lr=recipe.peak_lr)
    goal = Goal({"layers.2": 0.9})
    gradual_prune(network, dense, goal, data.train, adapter.training_loss, adapter.training_score, settings)
    assert (network.layers[2].weight == 0).float().mean() == pytest.approx(0.9, abs=1e-3)
    assert adapter.evaluate(torch_predict(network), data).value > 0.9
