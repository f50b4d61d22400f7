"""`pipeline predict`: a quick look at what a bundle's network says."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from calibration.errors import DataError
from pipeline.console import Reporter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.serving.model import BundleModel

ARRAYS = (".npy", ".npz")
SHOWN = 20
Prediction = dict[str, Any]
"""``class`` and ``probability``, and of an object its ``box``."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", metavar="IMAGE|NPZ", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="classes or objects of a sample")
@click.option("--runtime", help="another runtime than the one that was certified")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object on standard output")
def predict(bundle: Path, source: Path, top: int, runtime: str | None, as_json: bool) -> None:
    """What a bundle's network says about an image, or about every sample of an array.

    \b
    pipeline predict runs/demo/bundle photo.png
    pipeline predict runs/demo/bundle samples.npz --json

    An image is preprocessed as for training; a detector's objects come with their boxes in the image's pixels. An .npz
    or .npy file holds preprocessed inputs [n, …]; of several arrays the one called inputs is taken.
    """
    from pipeline import load_bundle

    reporter = Reporter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        model = load_bundle(bundle, runtime=runtime)
    for warning in caught:
        reporter.warn(str(warning.message))
    with model:
        samples = [row[:top] for row in _predictions(model, source)]
        if as_json:
            click.echo(json.dumps(_answer(model, samples)))
        else:
            reporter.table(_table(samples))


def _predictions(model: "BundleModel", source: Path) -> list[list[Prediction]]:
    """Of every sample what it is, or what is on it, the most probable first."""
    from pipeline.serving.record import OBJECT_DETECTION

    is_array = source.suffix.lower() in ARRAYS
    if model.record.task == OBJECT_DETECTION:
        found = model.objects(model(read_array(source))) if is_array else [model.detect(source)]
        return [[{"class": o.name, "probability": o.confidence, "box": o.box} for o in row] for row in found]
    scores = model.classify(model(read_array(source))) if is_array else [model.predict(source)]
    return [[{"class": score.name, "probability": score.probability} for score in row] for row in scores]


def read_array(path: Path) -> "NDArray[Any]":
    """The array in an .npy file, the only one or ``inputs`` in an .npz file.

    Raises:
        DataError: there is no such file or array.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            name = found.files[0] if len(found.files) == 1 else "inputs"
            array: NDArray[Any] = found[name]
            return array
    except KeyError:
        raise DataError(f"{path} holds {', '.join(found.files) or 'no array'}; call one of them inputs.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as numpy arrays: {error}.") from None


def _answer(model: "BundleModel", samples: list[list[Prediction]]) -> dict[str, Any]:
    record = model.record
    return {
        "status": "done",
        "exit_code": 0,
        "model": record.model,
        "runtime": model.runtime,
        "certified_runtime": record.runtime,
        "predictions": samples,
    }


def _table(samples: list[list[Prediction]]) -> Table:
    """Everything asked for of one sample; of several, one line each."""
    if len(samples) == 1:
        has_boxes = any("box" in prediction for prediction in samples[0])
        table = Table("class", "probability", *(["left, top, right, bottom"] if has_boxes else []))
        for prediction in samples[0]:
            box = [", ".join(f"{edge:.0f}" for edge in prediction["box"])] if has_boxes else []
            table.add_row(prediction["class"], f"{prediction['probability']:.2%}", *box)
        return table
    table = Table("sample", "classes")
    for number, row in enumerate(samples[:SHOWN]):
        table.add_row(str(number), ", ".join(f"{one['class']} {one['probability']:.1%}" for one in row))
    if len(samples) > SHOWN:
        table.add_row("…", f"{len(samples) - SHOWN} more: see --json")
    return table
