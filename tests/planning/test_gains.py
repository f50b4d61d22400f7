"""What a run says where its runtime gains nothing."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from pipeline.planning.gains import require_fitting_methods, require_gain, require_sense
from profilers.latency_table import PlanMeasurement
from profilers.probe import ProbeRow, RuntimeCapability
from profilers.profile import anchor_plans, random_plan
from profilers.table_fit import fit_latency_table
from targets.errors import ConfigError, InconclusiveError, SpeedupError
from tests.opened_runs import opened_run
from tests.profilers.simulated import LEVELS, relative, units


def test_where_the_family_asked_for_gains_nothing_those_that_do_are_named(tmp_path: Path) -> None:
    run = opened_run(tmp_path / "run", families="int8")
    rows = tuple(ProbeRow("conv", 0.5, 1.0, gain, family=family) for family, gain in (("channel", 2.0), ("int8", 0.8)))
    run.capability = RuntimeCapability("onnxruntime", "1", ("channel", "int8"), "", rows)
    with pytest.raises(SpeedupError) as error:
        require_gain(run)
    said = str(error.value)
    assert "unreachable on onnxruntime with int8" in said
    assert "--families channel, from which it gains" in said
    assert "--runtime openvino (channel, int8)" in said
    assert "deepsparse" in said
    assert "--runtime onnxruntime" not in said


@pytest.mark.parametrize(("off", "speedup", "is_nonsense"), [(10.0, 3.0, True), (10.0, 0.05, False), (1.3, 9.0, False)])
def test_what_is_out_of_reach_by_nonsense_is_inconclusive(off: float, speedup: float, is_nonsense: bool) -> None:
    """Other processes had the cores while the dense network was timed against itself."""
    choices = [*anchor_plans(units(), LEVELS, 8), *(random_plan(units(), LEVELS, np.random.default_rng(0)),)]
    measured = [PlanMeasurement(c, relative(c) * (1.0 if any(c) else off)) for c in choices]
    table = fit_latency_table(units(), LEVELS, 0.01, measured, host_id="h", target={})
    with pytest.raises(InconclusiveError, match=r"by a factor of 10\.0.*--again") if is_nonsense else nullcontext():
        require_sense(table, speedup if speedup < 1 else 100 * speedup)


@pytest.mark.parametrize("asked", [{"allocator": "global-magnitude"}, {"solver": "adaprune"}])
def test_what_knows_single_weights_alone_is_refused_before_anything_is_measured(
    tmp_path: Path, asked: dict[str, str]
) -> None:
    run = opened_run(tmp_path / "run", families="int8", **asked)
    flag = f"--{' '.join(next(iter(asked.items())))}"
    with pytest.raises(ConfigError, match=f"{flag} is for single weights alone, and the levels here are int8"):
        require_fitting_methods(run)
