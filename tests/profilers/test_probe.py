"""What a probe's times promise, and that a promise survives its file."""

from pathlib import Path

import pytest

from profilers.probe import Capability, ProbeRow, RuntimeCapability
from targets.errors import ArtifactError


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


def test_a_capability_comes_back_from_its_file_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capability.json"
    capability = Capability("host", {"threads": 2}, (runtime(("unstructured",), conv3x3=(1.0, 1.6, 2.0, 2.5)),))
    capability.save(path)
    assert Capability.load(path) == capability
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ArtifactError, match="capability"):
        Capability.load(path)
