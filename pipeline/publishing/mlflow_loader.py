"""How MLflow loads a registered bundle: named in the model's MLmodel file, imported by `mlflow.pyfunc.load_model`.

No pickle: a registered version holds the bundle as it is, and the installed package runs it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Inputs = NDArray[Any] | Mapping[str, NDArray[Any]]


class BundleModel:
    """A bundle as MLflow calls it.

    Args:
        model: [n, …] inputs → outputs, as `pipeline.load_bundle` gives.
    """

    def __init__(self, model: Callable[[Inputs], NDArray[Any]]) -> None:
        self._model = model

    def predict(self, model_input: Inputs) -> NDArray[Any]:
        """[n, …] outputs, computed on the bundle's own runtime."""
        return self._model(model_input)


def _load_pyfunc(path: str) -> BundleModel:
    """The name and the argument are MLflow's."""
    from pipeline import load_bundle

    return BundleModel(load_bundle(Path(path)))
