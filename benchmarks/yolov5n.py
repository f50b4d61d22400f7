"""YOLOv5n on COCO128's split, DeepSparse at batch 1 and 16: the largest certified speedup, and precision there.

    SPDY_DATA=... python -m benchmarks.yolov5n [--batches 1,16] [--speedups 3,2.5,…] [--epochs 20] [--runs runs/bench]

For every batch size, requests fall until one is certified; those out of reach are refused in seconds and kept as such.
The comparison brings uniform and global magnitude to the same measured latency. With --epochs, the certified request
once more with gradual pruning on the 64 training images, by every allocator. The result is written after every run;
finished runs are not repeated, and a new one takes over the database and the measurements of the last.
"""

from pathlib import Path
from typing import Any

from benchmarks.points import SMALL, add_small, numbers, parser_of, point
from benchmarks.runs import data_folder
from pipeline.config import RunConfig

REQUESTS = "3,2.75,2.5,2.25,2,1.75,1.5,1.4,1.3,1.2,1.15,1.1,1.05"
COMMAND = "python -m benchmarks.yolov5n --epochs 20"


def main() -> None:
    """Run, collect, write."""
    parser = parser_of(__doc__, REQUESTS)
    add_small(parser)
    parser.add_argument("--batches", default="1,16")
    arguments = parser.parse_args()
    name = "yolov5n-small" if arguments.small else "yolov5n"
    small = SMALL if arguments.small else {}
    for batch_size in map(int, numbers(arguments.batches)):
        certified = largest(name, numbers(arguments.speedups), batch_size, arguments.runs, small)
        if certified is None or not arguments.epochs:
            continue
        for allocator in arguments.allocators.split(","):
            settings: dict[str, Any] = {"epochs": arguments.epochs, "allocator": allocator, "compare": False, **small}
            facts = {"batch_size": batch_size, "epochs": arguments.epochs, "allocator": allocator}
            point(name, COMMAND, yolov5n(certified, batch_size, **settings), arguments.runs, **facts)


def largest(name: str, requests: list[float], batch_size: int, runs: Path, small: dict[str, Any]) -> float | None:
    """The largest of the requests that is certified; None where none is."""
    for speedup in sorted(requests, reverse=True):
        facts = {"batch_size": batch_size, "epochs": 0, "allocator": "best"}
        row = point(name, COMMAND, yolov5n(speedup, batch_size, **small), runs, **facts)
        if row.get("status") == "certified":
            return speedup
    return None


def yolov5n(speedup: float, batch_size: int, **settings: Any) -> RunConfig:
    """The detector on this host."""
    data = data_folder()
    return RunConfig(
        target="auto",
        runtime="deepsparse",
        batch_size=batch_size,
        speedup=speedup,
        model="yolov5:n",
        weights=data / "yolov5" / "yolov5n.pt",
        data=data / "coco",
        **settings,
    )


if __name__ == "__main__":
    main()
