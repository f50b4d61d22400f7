from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.search.budget_dp import InfeasibleBudget, solve_budget
from pipeline.search.losses import LossMemory
from pipeline.search.spdy import Knobs, SearchResult
from pipeline.search.surrogate import Surrogate, model_search
from tests.search.timings import generated_timings

UNITS, LEVELS = 14, 12


class Weighted:
    """A loss that is a constant and a weighted sum of measured errors; only the errors are known to a search."""

    def __init__(self, seed: int = 0, constant: float = 0.05, interaction: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.costs = generated_timings(UNITS, LEVELS, rng)
        self.errors = [np.linspace(0, 1, LEVELS) ** p for p in rng.uniform(1.5, 4, UNITS)]
        self.weights = 10 ** rng.uniform(-1.5, 0, UNITS)
        self.budget = 0.45 * sum(row[0] for row in self.costs)
        self.constant, self.interaction = constant, interaction
        self.asked: list[tuple[int, ...]] = []

    def loss(self, plan: Sequence[int]) -> float:
        parts = np.array([w * row[i] for w, row, i in zip(self.weights, self.errors, plan, strict=True)])
        return self.constant + float(parts.sum() + self.interaction * (parts[1:] * parts[:-1]).sum())

    def evaluate(self, plans: Sequence[tuple[int, ...]], limit: float, share: float = 1.0) -> list[float]:
        self.asked += plans
        return [self.loss(plan) for plan in plans]

    def seconds(self, plan: Sequence[int]) -> float:
        return sum(float(row[i]) for row, i in zip(self.costs, plan, strict=True))

    @property
    def plain(self) -> tuple[int, ...]:
        return tuple(solve_budget(self.errors, self.costs, self.budget).choice.tolist())

    @property
    def best(self) -> float:
        weighed = [w * row for w, row in zip(self.weights, self.errors, strict=True)]
        return self.loss(solve_budget(weighed, self.costs, self.budget).choice.tolist())


def run(network: Weighted, knobs: Knobs | None = None, seed: int = 0) -> SearchResult:
    rng = np.random.default_rng(seed)
    return model_search(network.errors, network.costs, network.budget, network.evaluate, rng, knobs)


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_is_a_weighted_sum_is_minimised_in_few_evaluations(seed):
    network = Weighted(seed)
    found = run(network, Knobs(max_evaluations=100), seed)
    assert found.loss == network.loss(found.choice)
    assert found.loss - network.constant <= 1.02 * (network.best - network.constant)
    assert network.loss(network.plain) > found.loss


def test_weights_and_constant_are_learned_from_losses():
    network, rng = Weighted(), np.random.default_rng(1)
    plans = [tuple(rng.integers(0, LEVELS, UNITS).tolist()) for _ in range(400)]
    losses = {plan: network.loss(plan) for plan in plans}
    weights = Surrogate(network.errors, network.costs, network.budget).fit(losses, np.ones(len(losses)))
    assert np.median(np.abs(weights / network.weights - 1)) < 0.1
    assert np.corrcoef(weights, network.weights)[0, 1] > 0.99


def test_without_observations_of_a_unit_its_error_costs_what_errors_cost():
    network = Weighted(constant=0.0)
    network.weights[:] = 0.3
    losses = {plan: network.loss(plan) for plan in [(4,) * UNITS, (6,) * UNITS, (8,) * UNITS]}
    weights = Surrogate(network.errors, network.costs, network.budget).fit(losses, np.ones(3))
    assert weights == pytest.approx(0.3, rel=0.2)


def test_keeps_the_budget_and_is_never_worse_than_the_least_sum_of_errors():
    network = Weighted(3, interaction=5.0)
    found = run(network)
    assert network.asked[0] == network.plain
    assert all(network.seconds(plan) <= network.budget for plan in network.asked)
    assert len(set(network.asked)) == len(found.trace)
    assert found.loss == min(map(network.loss, network.asked)) < network.loss(network.plain)


def test_same_seed_same_plan():
    first, again, other = (run(Weighted(2), Knobs(max_evaluations=80), seed) for seed in (5, 5, 6))
    assert first.trace == again.trace
    assert first.choice.tolist() == again.choice.tolist()
    assert first.trace != other.trace


def test_limits_end_the_search():
    assert len(run(Weighted(), Knobs(max_evaluations=21)).trace) == 21
    assert run(Weighted(), Knobs(max_evaluations=1)).choice.tolist() == list(Weighted().plain)


def test_another_budget_begins_with_what_was_learned():
    memory, network = LossMemory(), Weighted(4)
    first = run(network, Knobs(max_evaluations=100, memory=memory))
    network.budget *= 0.9
    rng = np.random.default_rng(0)
    tables = network.errors, network.costs, network.budget, network.evaluate
    later = model_search(*tables, rng, Knobs(max_evaluations=1, memory=memory), first.choice.tolist())
    assert network.seconds(later.choice) <= network.budget
    assert later.loss < network.loss(network.plain)
    more = model_search(*tables, rng, Knobs(max_evaluations=20, memory=memory), later.choice.tolist())
    assert more.loss - network.constant <= 1.05 * (network.best - network.constant)


def test_forbidden_levels_and_unreachable_budgets():
    network = Weighted(5)
    network.errors[3] = np.where(np.arange(LEVELS) % 2, np.inf, network.errors[3])
    run(network, Knobs(max_evaluations=40))
    assert all(plan[3] % 2 == 0 for plan in network.asked)
    network.budget = 1e-9
    with pytest.raises(InfeasibleBudget):
        run(network)
