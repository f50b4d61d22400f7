"""What a probe's times promise, and that a promise survives its file."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from profilers.measure import Effort
from profilers.probe import Capability, ProbeRow, RuntimeCapability, probe
from targets.errors import ArtifactError
from targets.registry import get_runtime
from targets.target import Target

pytestmark = pytest.mark.timed


def runtime(families: tuple[str, ...], **speedups: tuple[float, ...]) -> RuntimeCapability:
    rows = [
        ProbeRow(operation, sparsity, 0.001, speedup)
        for operation, found in speedups.items()
        for sparsity, speedup in zip((0.5, 0.9, 0.95, 0.99), found, strict=True)
    ]
    return RuntimeCapability("engine", "1", families, "", tuple(rows))


def test_the_operation_that_gains_most_is_what_a_runtime_promises() -> None:
    found = runtime(("unstructured",), conv3x3=(0.8, 1.6, 2.0, 2.5), matmul=(0.4, 0.4, 0.4, 0.4))
    assert found.promise == pytest.approx((1.6 * 2.0 * 2.5) ** (1 / 3))
    assert found.gains


def test_gains_at_half_the_weights_promise_nothing() -> None:
    assert not runtime(("unstructured",), conv3x3=(1.5, 1.0, 1.05, 1.1)).gains


def test_a_runtime_without_families_promises_nothing_however_noisy_its_times() -> None:
    found = runtime((), conv3x3=(1.4, 1.4, 1.4, 1.4))
    assert found.promise == 1
    assert not found.gains


def test_an_operation_that_failed_counts_for_nothing() -> None:
    failed = RuntimeCapability(
        "engine", "1", ("unstructured",), "", (ProbeRow("conv3x3", 0.9, None, None, "no such operation"),)
    )
    assert failed.promise == 1
    assert failed.failures == ("conv3x3 at 90%: no such operation",)


def test_a_capability_comes_back_from_its_file_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capability.json"
    capability = Capability("host", {"threads": 2}, (runtime(("unstructured",), conv3x3=(1.0, 1.6, 2.0, 2.5)),))
    capability.save(path)
    assert Capability.load(path) == capability
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ArtifactError, match="capability"):
        Capability.load(path)


def test_a_family_promises_what_its_own_rows_gain_and_only_where_the_runtime_has_it() -> None:
    rows = (
        ProbeRow("conv3x3", 0.9, 0.001, 1.6),
        ProbeRow("conv3x3, channel", 0.5, 0.001, 2.0, family="channel"),
        ProbeRow("conv3x3, channel", 0.75, 0.001, 4.5, family="channel"),
        ProbeRow("matmul, int8", 0.75, 0.001, 1.1, family="int8"),
    )
    found = RuntimeCapability("engine", "1", ("channel", "int8"), "", rows)
    assert found.promise == 1
    assert found.promises == {"channel": pytest.approx(3.0), "int8": pytest.approx(1.1)}
    assert found.gains
    assert not RuntimeCapability("engine", "1", ("int8",), "", rows).gains


def test_zeros_come_first_and_other_families_where_zeros_gain_nothing() -> None:
    wide = RuntimeCapability("wide", "1", ("channel",), "", (ProbeRow("c", 0.5, 0.001, 9.0, family="channel"),))
    sparse, noisy = runtime(("unstructured",), conv3x3=(1.0, 1.6, 2.0, 2.5)), runtime((), conv3x3=(1.0, 1.2, 1.2, 1.2))
    assert Capability("host", {}, (wide, sparse)).best() == sparse
    assert Capability("host", {}, (noisy, wide)).best() == wide


def test_the_best_runtime_is_that_of_the_families_asked_for() -> None:
    def of(name: str, channel: float, int8: float) -> RuntimeCapability:
        rows = (ProbeRow("c", 0.75, 0.001, channel, family="channel"), ProbeRow("c", 0.75, 0.001, int8, family="int8"))
        return RuntimeCapability(name, "1", ("channel", "int8"), "", rows)

    narrow, quantised = of("narrow", 3.4, 0.9), of("quantised", 2.9, 2.5)
    capability = Capability("host", {}, (narrow, quantised))
    assert capability.best() == narrow
    assert capability.best(("int8",)) == quantised


def test_a_runtime_that_seems_to_gain_nothing_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Effort(warmups=1, rounds=5, seconds=0.1, patience_s=0.0)
    monkeypatch.setattr("profilers.probe.SECOND_LOOK", quick)
    starts, interpreter = tmp_path / "starts", tmp_path / "python"
    interpreter.write_text(  # its first four workers, one an operation and family, are killed at once
        f'#!/bin/sh\necho >> "{starts}"\n'
        f'[ "$(wc -l < "{starts}")" -gt 4 ] || kill -9 $$\nexec "{sys.executable}" "$@"\n'
    )
    interpreter.chmod(0o755)
    info = replace(get_runtime("onnxruntime"), interpreter=interpreter, families=("channel",))
    target = Target(name="auto", vendor="any", runtime="onnxruntime", threads=1, batch_size=1)
    found = probe([info], target, "host", effort=quick).of("onnxruntime")
    assert not found.failures
    assert found.gains
    assert len(starts.read_text().splitlines()) == 8
