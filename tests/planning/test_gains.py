"""What a run says where its runtime gains nothing."""

from pathlib import Path

import pytest

from pipeline.planning.gains import require_fitting_methods, require_gain
from profilers.probe import ProbeRow, RuntimeCapability
from targets.errors import ConfigError, SpeedupError
from tests.opened_runs import opened_run


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


@pytest.mark.parametrize("asked", [{"allocator": "global-magnitude"}, {"solver": "adaprune"}])
def test_what_knows_single_weights_alone_is_refused_before_anything_is_measured(
    tmp_path: Path, asked: dict[str, str]
) -> None:
    run = opened_run(tmp_path / "run", families="int8", **asked)
    flag = f"--{' '.join(next(iter(asked.items())))}"
    with pytest.raises(ConfigError, match=f"{flag} is for single weights alone, and the levels here are int8"):
        require_fitting_methods(run)
