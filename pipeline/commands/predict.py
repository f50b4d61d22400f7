"""`pipeline predict`: a quick look at what a bundle's network says."""

import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from calibration.errors import DataError
from pipeline.commands.options import as_json_option
from pipeline.console import Reporter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.serving.model import BundleModel

ARRAYS = (".npy", ".npz")
SHOWN = 20


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", metavar="IMAGE|TEXT|NPZ")
@click.option("--context", help="the text that the answer to the question TEXT is in, or a file of it; or TEXT's pair")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="classes of every sample")
@click.option("--runtime", help="another runtime than the one that was certified")
@as_json_option
def predict(bundle: Path, source: str, context: str | None, top: int, runtime: str | None, as_json: bool) -> None:
    """What a bundle's network says about an image or a text, or about every sample of an array.

    \b
    pipeline predict runs/demo/bundle photo.png
    pipeline predict runs/demo/bundle samples.npz --json
    pipeline predict runs/qa/bundle "Who wrote it?" --context article.txt

    An image is preprocessed as for training, a text is made into tokens. Detectors give boxes in the image's pixels,
    sentence networks embeddings. An .npz or .npy file holds preprocessed inputs [n, …] of a classifier; of several
    arrays the one called inputs is taken.
    """
    from pipeline import load_bundle

    reporter = Reporter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        model = load_bundle(bundle, runtime=runtime)
    for warning in caught:
        reporter.warn(str(warning.message))
    with model:
        predictions = [_plain(prediction, top) for prediction in _predictions(model, source, context)]
        if as_json:
            click.echo(json.dumps(_answer(model, predictions)))
        else:
            reporter.table(_table(predictions))


def _predictions(model: "BundleModel", source: str, context: str | None) -> Sequence[Any]:
    """What the network says, one a sample."""
    if source.lower().endswith(ARRAYS):
        return model.classify(model(read_array(Path(source))))
    if context is None:
        return [model.predict(source)]
    path = Path(context)
    return [model.predict((source, _read_text(path) if _is_file(path) else context))]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text can be too long for a file's name
        return False


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from None


def _plain(prediction: Any, top: int) -> Any:
    """A prediction as plain data: lists of classes are cut, objects are all there, embeddings lists of numbers."""
    from pipeline.serving.classification import ClassScore

    if isinstance(prediction, list):
        kept = prediction[:top] if prediction and isinstance(prediction[0], ClassScore) else prediction
        return [one.to_json() for one in kept]
    return prediction.to_json() if hasattr(prediction, "to_json") else prediction.tolist()


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


def _answer(model: "BundleModel", predictions: list[Any]) -> dict[str, Any]:
    record = model.record
    return {
        "status": "done",
        "exit_code": 0,
        "model": record.model,
        "runtime": model.runtime,
        "certified_runtime": record.runtime,
        "predictions": predictions,
    }


def _table(predictions: list[Any]) -> Table:
    """All that is said of one sample; of several, one line each."""
    if len(predictions) == 1:
        return _single(predictions[0])
    table = Table("sample", "classes")
    for number, row in enumerate(predictions[:SHOWN]):
        table.add_row(str(number), ", ".join(f"{one['class']} {one['probability']:.1%}" for one in row))
    if len(predictions) > SHOWN:
        table.add_row("…", f"{len(predictions) - SHOWN} more: see --json")
    return table


def _single(prediction: Any) -> Table:
    """Classes or objects in rows, an answer in one, an embedding by its first numbers."""
    if isinstance(prediction, list) and prediction and isinstance(prediction[0], float):
        table = Table(f"embedding of {len(prediction)} numbers")
        table.add_row(", ".join(f"{number:.3f}" for number in prediction[:8]) + ", …")
        return table
    rows = prediction if isinstance(prediction, list) else [prediction]
    table = Table(*(rows[0] if rows else ["no objects"]))
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    return table


def _shown(name: str, value: Any) -> str:
    if name == "probability":
        return f"{value:.2%}"
    if isinstance(value, list):
        return ", ".join(f"{number:.0f}" for number in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
