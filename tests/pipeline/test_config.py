"""What is asked for, and how a mistake in it is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RunConfig, check_same, resolve, to_toml
from targets.errors import ConfigError


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("speedup = 2.0\nepochs = 4\n")
    config = resolve({"speedup": 3.0, "epochs": None}, path, None)
    assert (config.speedup, config.epochs, config.seed) == (3.0, 4, 0)


def test_a_run_folder_fills_what_is_not_said() -> None:
    stored = resolve({"speedup": 2.5, "epochs": 3}, None, None).model_dump(mode="json")
    assert resolve({"epochs": None}, None, stored) == resolve({"speedup": 2.5, "epochs": 3}, None, None)


def test_a_run_folder_of_another_configuration_is_refused_and_told_apart() -> None:
    stored = resolve({"speedup": 2.5}, None, None).model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"speedup 2\.5 → 3\.0"):
        resolve({"speedup": 3.0}, None, stored)


@pytest.mark.parametrize("speedup", [1.0, 0.0, -3.0, float("nan"), float("inf")])
def test_a_speedup_is_a_finite_gain(speedup: float) -> None:
    with pytest.raises(ConfigError, match="--speedup"):
        resolve({"speedup": speedup}, None, None)


@given(st.floats(min_value=1.001, max_value=1000))
def test_any_finite_gain_is_taken(speedup: float) -> None:
    assert resolve({"speedup": speedup}, None, None).speedup == speedup


def test_no_speedup_says_how_to_ask_for_one() -> None:
    with pytest.raises(ConfigError, match="--speedup 3"):
        resolve({}, None, None)


def test_a_typo_in_the_file_names_the_nearest_setting(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("speedup = 2.0\nepoch = 4\n")
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        resolve({}, path, None)


@pytest.mark.parametrize("text", ["speedup = ", "\x00", "speedup = 'fast'", "speedup = 2\nepochs = -1"])
def test_a_broken_file_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        resolve({}, path, None)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        resolve({}, tmp_path / "absent.toml", None)


def test_following_a_run_elsewhere_makes_it_no_other_run() -> None:
    stored = resolve({"speedup": 2.5}, None, None).model_dump(mode="json")
    config = resolve({"track": "mlflow:http://127.0.0.1:5000"}, None, stored)
    assert resolve({}, None, config.model_dump(mode="json")) == config


def test_the_file_of_a_run_asks_for_the_same_again_and_not_for_its_server(tmp_path: Path) -> None:
    given = {"speedup": 2.5, "weights": Path('a "quoted" é.pt'), "seed": 7, "max_drop": 0.5, "compare": False}
    config = resolve({**given, "track": "mlflow:http://127.0.0.1:5000"}, None, None)
    path = tmp_path / "run.toml"
    path.write_text(to_toml(config))
    assert resolve({}, path, None) == resolve(given, None, None)
    assert resolve({}, path, config.model_dump(mode="json")) == config
    assert "5000" not in path.read_text()


@pytest.mark.parametrize(
    "track",
    ["mlflow:", "wandb", "http://127.0.0.1", "mlflow:http://", "mlflow:http://a:pass@host", "mlflow:http://h:x"],
)
def test_what_cannot_follow_a_run_is_refused_without_repeating_a_password(track: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve({"speedup": 2.5, "track": track}, None, None)
    assert "pass@" not in str(refused.value)


def test_where_a_run_works_is_not_remembered_and_makes_it_no_other_run() -> None:
    stored = RunConfig(speedup=2, backend="dask", scheduler="tcp://10.0.0.1:8786").model_dump(mode="json")
    assert resolve({}, None, stored) == RunConfig(speedup=2)
    assert resolve({"backend": "loky", "workers": 2}, None, stored).workers == 2
    ahead = RunConfig(speedup=2, precedence=True)
    assert resolve({}, None, ahead.model_dump(mode="json")) == ahead
    check_same(ahead, RunConfig(speedup=2))
