"""Models by name."""

import difflib
from dataclasses import dataclass

from pipeline.models.base import ModelAdapter
from pipeline.models.classifiers import ResNetAdapter
from pipeline.models.resnet import VARIANTS
from targets.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model for people to choose."""

    name: str
    description: str
    data_format: str


def list_models() -> list[ModelInfo]:
    """Every model that `get_adapter` knows, the embedded one first."""
    return [ModelInfo(v.name, v.description, v.data_format) for v in VARIANTS.values()]


def get_adapter(name: str) -> ModelAdapter:
    """The adapter of a model such as ``resnet:20``.

    Raises:
        ConfigError: there is no such model; names the nearest.
    """
    if name in VARIANTS:
        return ResNetAdapter(VARIANTS[name])
    near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)
    raise ConfigError(f"Unknown model {name!r}; did you mean {near[0]!r}? There are: {', '.join(VARIANTS)}.")
