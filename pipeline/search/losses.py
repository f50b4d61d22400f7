"""Losses of plans: what a search asks for, how it remembers them, and how it asks for no more than it needs."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

Plan = tuple[int, ...]
"""One level a unit, as positions in the tables' columns."""

SHARES = (0.25, 0.5)
"""Shares of the calibration set on which a race drops half of its plans, before the rest see all of it."""


class Evaluate(Protocol):
    """Losses of plans on the calibration set; asked for several at a time, so that work can be shared or spread."""

    def __call__(self, plans: Sequence[Plan], limit: float, share: float = 1.0) -> Sequence[float]:
        """Mean loss of every plan over the first ``share`` of the calibration set.

        A plan whose loss is sure to exceed ``limit`` may get, early, any value above it.
        """


class Judgement(NamedTuple):
    """What a race says of a plan: its loss, and whether it is that of the whole calibration set."""

    loss: float
    complete: bool


def race(plans: Sequence[Plan], evaluate: Evaluate, limit: float) -> list[Judgement]:
    """Judge plans on growing parts of the calibration set; the worse half of those still in it drops out each time.

    Successive halving (Jamieson & Talwalkar, 2016). A plan alone is judged on the whole set at once.

    Args:
        plans: no two alike.
        evaluate: losses; NaN counts as infinite.
        limit: the loss to beat: at least one plan gets its complete loss or a value above this.
    """
    judged = [Judgement(math.inf, False)] * len(plans)
    left = list(range(len(plans)))
    for share in SHARES:
        if len(left) == 1:
            break
        losses = _asked([plans[i] for i in left], evaluate, math.inf, share)
        for i, loss in zip(left, losses, strict=True):
            judged[i] = Judgement(loss, False)
        left = sorted(left, key=lambda i: judged[i].loss)[: math.ceil(len(left) / 2)]
    for i, loss in zip(left, _asked([plans[i] for i in left], evaluate, limit, 1.0), strict=True):
        # A bound says less than a part of the calibration set may have said before.
        known = judged[i].loss if len(plans) > 1 else loss
        judged[i] = Judgement(loss, True) if loss <= limit else Judgement(max(loss, known), False)
    return judged


def _asked(plans: Sequence[Plan], evaluate: Evaluate, limit: float, share: float) -> list[float]:
    return [math.inf if math.isnan(loss) else float(loss) for loss in evaluate(plans, limit, share)]


class LossMemory:
    """Losses of plans, so that none is evaluated twice, in one search or in the next over the same calibration set."""

    def __init__(self) -> None:
        self._known: dict[Plan, Judgement] = {}

    def recall(self, plan: Plan, limit: float) -> float | None:
        """The plan's loss, or a value above ``limit`` if it is known to exceed that; None if it must be evaluated."""
        loss, complete = self._known.get(plan, Judgement(-math.inf, False))
        return loss if complete or loss > limit else None

    def losses(self) -> dict[Plan, float]:
        """Every plan's finite loss, as far as it is known: on a part of the calibration set, or a bound, at worst."""
        return {plan: loss for plan, (loss, _) in self._known.items() if math.isfinite(loss)}

    def store(self, plan: Plan, judgement: Judgement) -> None:
        """Keep what a race said. A loss that is not complete counts as above every limit up to it."""
        self._known[plan] = judgement
