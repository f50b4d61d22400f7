"""The measuring worker's own decisions, in this process."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profilers import worker
from targets.runtimes import onnxruntime
from tests.profilers.test_measure import write_matmul


def test_a_long_measurement_says_now_and_then_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    beat = worker.heart(events.append, 3)
    beat()
    assert events == []  # not as often as it is asked
    monkeypatch.setattr(worker, "BEAT_S", 0.0)
    beat()
    assert events == [{"event": "alive", "group": 3}]


@pytest.mark.parametrize(("slow_s", "compilations"), [(1e9, 3), (0.0, 1)])
def test_what_takes_long_to_compile_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_s: float, compilations: int
) -> None:
    monkeypatch.setattr(worker, "SLOW_COMPILE_S", slow_s)
    model = {"path": str(write_matmul(tmp_path / "model.onnx", 16, 1)), "precision": "fp32"}
    effort = {"compilations": 3, "warmups": 1, "rounds": 2, "seconds": 0.0, "patience_s": 0.0, "nearest_s": None}
    use = {"threads": 1, "batch_size": 4, "cpus": None, "inputs": None, "seed": 0}
    job = effort | use | {"reference": model}
    cores = worker.Cores(worker.CoreDistance(()), None)
    beats: list[None] = []
    found = worker.measure_group(job, onnxruntime, np, random.Random(0), cores, [model], lambda: beats.append(None))
    assert sorted(set(found["compilation"])) == list(range(compilations))
    assert len(beats) >= 4 * compilations
