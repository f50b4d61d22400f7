"""Generations of plans against the best one so far: what evolution and the surrogate's search have in common."""

import math
from collections.abc import Mapping

from pipeline.search.losses import Evaluate, LossMemory, Plan, race
from pipeline.search.spdy import Knobs, Progress, TraceRow

GENERATION = 16
"""Plans judged in one race."""


class Generations:
    """The best plan so far, and every evaluation that led to it.

    Args:
        evaluate: losses of plans.
        knobs: limits, progress and memory.
        phase: what the trace calls these evaluations.
        plan: to begin with, of which the memory may know the loss.
    """

    def __init__(self, evaluate: Evaluate, knobs: Knobs, phase: str, plan: Plan) -> None:
        self.memory = knobs.memory or LossMemory()
        known = self.memory.recall(plan, math.inf)
        self.plan, self.loss = plan, math.inf if known is None else known
        self.trace: list[TraceRow] = []
        self._evaluate, self._knobs, self._phase = evaluate, knobs, phase
        self._in_vain = 0

    @property
    def room(self) -> int:
        """How many plans the next generation may hold; 0 where a limit ends the search."""
        stops = self._knobs.should_stop is not None and self._knobs.should_stop()
        return 0 if stops else min(GENERATION, self._left())

    def is_new(self, plan: Plan) -> bool:
        """Whether a plan may be better than the best one so far: it is not known to be worse."""
        known = self.memory.recall(plan, self.loss)
        return known is None or known < self.loss

    def judge(self, generation: Mapping[Plan, int]) -> None:
        """Race plans; the best of them goes on if it beats the best so far.

        Args:
            generation: plan → in how many units it differs from the one that it was made of.
        """
        judged = dict(zip(generation, race(list(generation), self._evaluate, self.loss), strict=True))
        for plan, judgement in judged.items():
            self.memory.store(plan, judgement)
        complete = {plan: judgement.loss for plan, judgement in judged.items() if judgement.complete}
        best = min(complete, key=lambda plan: complete[plan], default=self.plan)
        if complete.get(best, math.inf) < self.loss:
            self.plan, self.loss, self._in_vain = best, complete[best], 0
        else:
            self._in_vain += len(judged)
        for plan, judgement in judged.items():
            row = TraceRow(len(self.trace) + 1, judgement.loss, self.loss, self._phase, generation[plan])
            self.trace.append(row)
            if self._knobs.on_progress is not None:
                self._knobs.on_progress(Progress(self.loss, len(self.trace), self._left()))

    def _left(self) -> int:
        """Evaluations to come if none of them brings an improvement."""
        left, most = self._knobs.patience - self._in_vain, self._knobs.max_evaluations
        return max(0, left if most is None else min(left, most - len(self.trace)))
