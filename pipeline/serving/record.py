"""serving.json: what a program must know to run a bundle, so that nothing else needs to know the model's name."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from calibration.pictures import Preprocessing
from pipeline.run_folder import read_json
from targets.errors import ArtifactError

SCHEMA = 1
NAME = "serving.json"
IMAGE_CLASSIFICATION = "image-classification"
OBJECT_DETECTION = "object-detection"
TEXT_CLASSIFICATION = "text-classification"
SENTENCE_SIMILARITY = "sentence-similarity"
QUESTION_ANSWERING = "question-answering"
CLASSIFICATIONS = (IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: its name in the model file, its shape with the batch in front, and numpy's type name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRecord:
    """How a bundle's network is fed, run and read.

    Args:
        model: its name, such as ``resnet:20``.
        task: what it does, in Hugging Face's words. Classification gives [n, classes] logits, object detection
            [n, anchors, 5 + classes] as `pipeline.scoring.nms.find_detections` takes, sentence similarity [n, hidden]
            embeddings, question answering [n, length, 2] logits of each token's being the answer's first and last.
        inputs: what it is fed, in the model file's order.
        runtime: that it was certified on, with this precision, these threads and this batch size.
        preprocessing: how an image file becomes an input; None where inputs are no images.
        classes: names of the classes in the order of the outputs.
    """

    model: str
    task: str
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    runtime: str
    precision: str
    threads: int
    batch_size: int
    preprocessing: Preprocessing | None
    classes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {"schema": SCHEMA} | asdict(self)

    @classmethod
    def load(cls, bundle: Path) -> Self:
        """The record in a bundle.

        Raises:
            ArtifactError: it is missing, broken or of another version.
        """
        path = bundle / NAME
        if not path.exists():
            raise ArtifactError(
                f"{bundle} has no {NAME}: it was made before bundles said how to run them. "
                "Make it again from its run folder: pipeline report RUN --again"
            )
        data = read_json(path)
        try:
            if data["schema"] != SCHEMA:
                raise ArtifactError(f"{path} has schema {data['schema']}; this version reads {SCHEMA}.")
            return cls(**{field.name: _read(field.name, data[field.name]) for field in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is no serving record ({type(error).__name__}: {error}).") from None


def _spec(value: Any) -> TensorSpec:
    return TensorSpec(value["name"], tuple(value["shape"]), value["dtype"])


def _read(name: str, value: Any) -> Any:
    """A field's value from plain data."""
    if name == "output":
        return _spec(value)
    if name == "inputs":
        return tuple(map(_spec, value))
    if name == "preprocessing" and value is not None:
        return Preprocessing.from_json(value)
    return tuple(value) if name == "classes" else value
