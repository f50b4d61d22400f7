"""The dense network in shorter floats stands beside our plans, with its accuracy, on the real runtimes."""

from dataclasses import asdict

import pytest

from pipeline.certification.baseline import DenseTime
from pipeline.comparison.reduced_float import reduced_floats, uncompressed
from pipeline.context import Run
from pipeline.run_folder import write_json
from pipeline.training.recovery import accuracy_of
from targets.errors import RuntimeMissingError
from targets.registry import describe_runtime
from tests.opened_runs import opened_run

FULL = [DenseTime("openvino", "fp32", 0.002), DenseTime("onnxruntime", "fp32", 0.003)]
HAS_BF16 = "bf16" in describe_runtime("openvino").precisions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return opened_run(tmp_path_factory.mktemp("run") / "out")


def certified_with(run: Run, *times: DenseTime) -> Run:
    write_json(run.folder.file("certificate.json"), {"dense_times": [asdict(time) for time in times]})
    return run


def test_a_row_has_the_accuracy_of_the_runtime_that_was_timed_and_its_speed_over_the_baseline(run: Run) -> None:
    row = uncompressed(run, FULL[0], FULL)  # in fp32 every CPU computes it
    assert row["allocator"] == "dense in fp32 on openvino"
    assert row["measured_speedup"] == pytest.approx(1.5)
    assert row["accuracy"] == pytest.approx(accuracy_of(run, run.copy_of_dense()), abs=1e-9)


def test_what_computes_in_fp32_alone_has_no_row(run: Run) -> None:
    assert reduced_floats(certified_with(run, *FULL)) == []


def test_bf16_has_its_own_accuracy_where_the_cpu_computes_it_and_is_refused_elsewhere(run: Run) -> None:
    certified_with(run, DenseTime("openvino", "bf16", 0.001), *FULL)
    if not HAS_BF16:
        with pytest.raises(RuntimeMissingError, match="bf16"):
            reduced_floats(run)
        return
    (row,) = reduced_floats(run)
    assert row["measured_speedup"] == pytest.approx(3)
    assert row["accuracy"] > 0.95
