"""What a bundle's network says of one sample, in the words of its task."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.serving.classification import ClassScore, Picture, open_picture, upright
from pipeline.serving.detection import FoundObject, read_objects
from pipeline.serving.errors import InputError
from pipeline.serving.record import (
    IMAGE_CLASSIFICATION,
    OBJECT_DETECTION,
    QUESTION_ANSWERING,
    SENTENCE_SIMILARITY,
    TEXT_CLASSIFICATION,
)
from pipeline.serving.texts import Answer, Text, is_pair, read_answer

if TYPE_CHECKING:
    from pipeline.serving.model import BundleModel


def _classes_of_picture(model: "BundleModel", picture: Picture) -> list[ClassScore]:
    return model.classify(model(model.preprocess(picture)[None]))[0]


def _objects_in_picture(model: "BundleModel", picture: Picture) -> list[FoundObject]:
    image = upright(open_picture(picture))
    inputs = model.preprocess(image)
    (outputs,) = model(inputs[None])
    return read_objects(outputs, image, inputs.shape[-1], model.record.classes)


def _classes_of_text(model: "BundleModel", text: Text) -> list[ClassScore]:
    return model.classify(model([_text(text)]))[0]


def _embedding(model: "BundleModel", text: Text) -> NDArray[Any]:
    (embedding,) = model([_text(text)])
    return embedding  # type: ignore[no-any-return]


def _answer(model: "BundleModel", sample: tuple[str, str]) -> Answer:
    if not is_pair(sample):
        raise InputError(f"{model.record.model} answers questions: give it a pair, (question, context).")
    question, context = sample
    inputs, windows = model.reader.windows(question, context)
    return read_answer(context, windows, model(inputs))


def _text(sample: Any) -> Text:
    if isinstance(sample, str) or is_pair(sample):
        return sample
    raise InputError(f"a {type(sample).__name__} is no text: give a string, or a pair of strings.")


TASKS: dict[str, Callable[["BundleModel", Any], Any]] = {
    IMAGE_CLASSIFICATION: _classes_of_picture,
    OBJECT_DETECTION: _objects_in_picture,
    TEXT_CLASSIFICATION: _classes_of_text,
    SENTENCE_SIMILARITY: _embedding,
    QUESTION_ANSWERING: _answer,
}
"""What `BundleModel.predict` does, by the network's task."""
