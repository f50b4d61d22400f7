"""The tasks that samples with the right answers can judge."""

from collections.abc import Mapping

from pipeline.scoring.base import Scorer
from pipeline.scoring.classes import ClassScorer
from pipeline.scoring.objects import ObjectScorer
from pipeline.scoring.questions import QuestionScorer
from pipeline.scoring.similarity import SimilarityScorer
from pipeline.serving.record import OBJECT_DETECTION, QUESTION_ANSWERING, SENTENCE_SIMILARITY
from targets.errors import ConfigError

SCORERS: Mapping[str, Scorer] = {
    OBJECT_DETECTION: ObjectScorer(),
    QUESTION_ANSWERING: QuestionScorer(),
    SENTENCE_SIMILARITY: SimilarityScorer(),
}


def scorer_of(task: str) -> Scorer:
    """How networks of a task, in Hugging Face's words, are scored; every kind of classification is one.

    Raises:
        ConfigError: it is not known.
    """
    if task.endswith("-classification"):
        return ClassScorer()
    if task not in SCORERS:
        raise ConfigError(
            f"How {task} is scored is not known here; known are {', '.join(SCORERS)} and all kinds of classification. "
            "Leave the sample out: golden outputs and the speedup are checked without it."
        )
    return SCORERS[task]
