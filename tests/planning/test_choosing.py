"""Which offer `--runtime auto` takes, and what an accuracy floor says."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig
from pipeline.context import Run
from pipeline.planning.choosing import Offer, _best, _executed
from pipeline.planning.floors import has_floor, is_too_low
from targets.errors import AccuracyError
from tests.opened_runs import opened_run


def offer(name: str, latency_s: float | None, loss: float | None, holds: bool) -> Offer:
    return Offer(name, name, (), "", latency_s=latency_s, loss=loss, holds=holds)


def test_without_a_floor_the_offer_nearest_to_the_dense_network_is_taken() -> None:
    offers = [offer("fast", 0.001, 0.3, True), offer("near", 0.004, 0.1, True), offer("none", None, None, False)]
    found = _best(offers, by_speed=False)
    assert found is not None
    assert found.runtime == "near"


def test_with_a_floor_the_fastest_offer_that_holds_it_is_taken_else_the_nearest() -> None:
    offers = [offer("too fast", 0.001, 0.3, False), offer("fast", 0.002, 0.2, True), offer("slow", 0.004, 0.1, True)]
    found = _best(offers, by_speed=True)
    assert found is not None
    assert found.runtime == "fast"
    found = _best(offers[:1], by_speed=True)
    assert found is not None
    assert found.runtime == "too fast"


@pytest.mark.parametrize(
    "ending", [{"status": "inconclusive", "exit_code": 6}, AccuracyError("fell by 1.1 points\nmore")]
)
def test_where_more_than_was_asked_is_not_certified_the_run_as_asked_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: dict[str, Any] | AccuracyError
) -> None:
    base, faster = (opened_run(tmp_path / name, speedup=speedup) for name, speedup in (("base", 2.0), ("more", 2.8)))
    certified = {"status": "certified", "exit_code": 0}

    def executed(run: Run, last: str, again: bool) -> dict[str, Any]:
        assert (last, again) == ("report", False)
        if run is faster and isinstance(ending, AccuracyError):
            raise ending
        return ending if run is faster and isinstance(ending, dict) else certified

    monkeypatch.setattr("pipeline.planning.choosing.execute", executed)
    assert _executed(faster, base, "report", again=False) == (base, certified)
    assert _executed(base, base, "report", again=False) == (base, certified)


def test_no_offer_is_no_choice() -> None:
    assert _best([offer("none", None, None, False)], by_speed=True) is None


def test_offers_whose_loss_nobody_asked_for_are_compared_by_latency() -> None:
    found = _best([offer("slow", 0.004, None, True), offer("fast", 0.001, None, True)], by_speed=False)
    assert found is not None
    assert found.runtime == "fast"


@pytest.mark.parametrize(
    ("floors", "accuracy", "too_low"),
    [
        ({}, 0.0, False),
        ({"min_accuracy": 88.0}, 0.88, False),
        ({"min_accuracy": 88.0}, 0.8799, True),
        ({"max_drop": 1.0}, 0.895, False),
        ({"max_drop": 1.0}, 0.885, True),
        ({"max_drop": 1.0}, 0.89, False),  # 0.9 - 0.89 is a little more than 0.01 in floating point
        ({"min_accuracy": 80.0, "max_drop": 1.0}, 0.885, True),
    ],
)
def test_floors_are_in_percent_and_points(floors: dict[str, float], accuracy: float, too_low: bool) -> None:
    config = RunConfig(speedup=2.0, **floors)
    assert has_floor(config) == bool(floors)
    assert is_too_low(config, accuracy, dense=0.9) == too_low
