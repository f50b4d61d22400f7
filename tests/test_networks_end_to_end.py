"""YOLOv5 and BERT with real weights and data, from the probe to a bundle that `pipeline verify` measures again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from pipeline.exporting.graph import ExportedGraph
from tests.quick_runs import measure_little, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("SPDY_DATA" not in os.environ, reason="SPDY_DATA names no data"),
]

DATA = Path(os.environ.get("SPDY_DATA", "")).resolve()
SETTINGS = (
    *("--target", "auto", "--runtime", "openvino", "--families", "channel", "--batch-size", 1),
    *("--levels", 3, "--plans", 12, "--evaluations", 2, "--calibration-samples", 16, "--correction-passes", 1),
    *("--allocator", "spdy", "--no-compare", "--ship-sample", 32),
)


@pytest.fixture(scope="module", autouse=True)
def patch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        measure_little(patch)
        yield patch


def parameters(graph: ExportedGraph) -> int:
    return sum(graph.weight(layer).size for layer in graph.layers)


def check_run(folder: Path, metric: str, least: float) -> dict[str, object]:
    """What every finished run has, whether so few measurements certify it or not; its certificate."""
    bundle = folder / "bundle"
    certificate: dict[str, object] = json.loads((bundle / "certificate.json").read_text())
    accuracy = certificate["accuracy"]
    assert isinstance(accuracy, dict)
    assert metric in accuracy["metric"]
    assert accuracy["dense"] > least
    assert accuracy["compressed"] > least / 4  # sixteen samples and one pass correct little
    narrower = [
        unit["name"] for unit in json.loads((bundle / "plan.json").read_text())["units"] if unit["level"]["amount"] > 0
    ]
    assert narrower
    dense, model = (ExportedGraph(onnx.load(bundle / name)) for name in ("dense.onnx", "model.onnx"))
    assert parameters(model) < parameters(dense)
    assert metric in (bundle / "report.html").read_text()
    assert run("verify", bundle, "--budget", 5) in (0, 3, 6)
    return certificate


def test_yolov5_on_photographs() -> None:
    network = ("--model", "yolov5:n", "--weights", DATA / "yolov5" / "yolov5n.pt", "--input-size", 256)
    assert run("run", *network, "--data", DATA / "coco", *SETTINGS, "--speedup", 1.1, "--out", "yolov5") in (0, 3, 6)
    check_run(Path("yolov5"), "mAP@.5:.95", least=0.1)


def test_bert_on_sentence_pairs(minilm: Path) -> None:
    folder = Path("pairs")
    folder.mkdir()
    for name in ("train.csv", "dev.csv"):  # no more of them than a minute's test needs
        lines = (DATA / "stsb" / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:120]))
    network = ("--model", "bert:embedding", "--weights", minilm, "--input-size", 32)
    assert run("run", *network, "--data", folder, *SETTINGS, "--speedup", 1.1, "--out", "bert") in (0, 3, 6)
    check_run(Path("bert"), "Spearman", least=0.8)
