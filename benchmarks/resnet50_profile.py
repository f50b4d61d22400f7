"""How long it takes to profile a full-size network: ResNet-50 at 224², batch 16, DeepSparse.

    python -m benchmarks.resnet50_profile [--batch-size 16] [--speedup 3] [--runs runs/bench]

Where the zeros are decides a latency, not what the weights say, so that random weights and images do.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.runs import open_run, profile_timed, write_result
from pipeline.config import RunConfig
from pipeline.models.checkpoints import write_weights
from pipeline.models.resnet import VARIANTS

CLASSES, IMAGES, PIXELS = 2, 16, 224


def main() -> None:
    """Make inputs, profile, write how long it took and how well the table fits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--speedup", type=float, default=3.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        config = RunConfig(
            target="auto",
            runtime="deepsparse",
            batch_size=arguments.batch_size,
            speedup=arguments.speedup,
            model="resnet:50",
            weights=Path(folder, "resnet50.safetensors"),
            data=Path(folder, "images"),
            calibration_samples=IMAGES,
        )
        run = open_run(config, arguments.runs / f"resnet50-b{arguments.batch_size}")
        table, facts = profile_timed(run)
        result = {
            "command": f"python -m benchmarks.resnet50_profile --batch-size {arguments.batch_size}",
            **facts,
            "fastest_measured_speedup": max(1 / plan.relative for plan in table.measurements),
        }
    write_result("resnet50_profile", result)


def make_inputs(folder: Path) -> None:
    """Random weights, and a few random images of two classes."""
    torch.manual_seed(0)
    write_weights(VARIANTS["resnet:50"].build(CLASSES, 3).state_dict(), folder / "resnet50.safetensors")
    rng = np.random.default_rng(0)
    for number in range(2 * IMAGES):
        path = folder / "images" / ("train" if number < IMAGES else "test") / f"class{number % CLASSES}"
        path.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number}.png")


if __name__ == "__main__":
    main()
