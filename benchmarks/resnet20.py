"""ResNet-20 on CIFAR-10, DeepSparse at batch 64: accuracy against certified speedup, and plain allocators.

    SPDY_DATA=... python -m benchmarks.resnet20 [--speedups 2,2.5,3,4] [--epochs 6] [--runs runs/bench]

For every requested speedup one run of the pipeline: a certificate for the best plan, and SPDY's, uniform and global
magnitude brought to the same measured latency by the same closed loop, all with the same database and correction. With
--epochs, once more for 3x with gradual pruning, by every allocator. The result is written after every run; finished
runs are not repeated, and a new one takes over the database and the measurements of the last.
"""

from typing import Any

from benchmarks.points import numbers, parser_of, point
from benchmarks.runs import resnet20

COMMAND = "python -m benchmarks.resnet20 --epochs 6"


def main() -> None:
    """Run, collect, write."""
    parser = parser_of(__doc__, "2,2.5,3,4")
    parser.add_argument("--epochs-at", type=float, default=3.0)
    arguments = parser.parse_args()
    points = [(speedup, 0, "best") for speedup in numbers(arguments.speedups)]
    if arguments.epochs:
        points += [(arguments.epochs_at, arguments.epochs, name) for name in arguments.allocators.split(",")]
    for speedup, epochs, allocator in points:
        settings: dict[str, Any] = {"epochs": epochs, "allocator": allocator, "compare": not epochs}
        point("resnet20", COMMAND, resnet20(speedup, **settings), arguments.runs, epochs=epochs, allocator=allocator)


if __name__ == "__main__":
    main()
