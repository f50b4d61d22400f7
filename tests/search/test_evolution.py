import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.search.allocators import ALLOCATORS
from pipeline.search.budget_dp import InfeasibleBudget, solve_budget
from pipeline.search.evolution import Evolved, Ladders, evolve
from pipeline.search.losses import LossMemory
from pipeline.search.spdy import Knobs, search
from tests.search.test_allocators import problem
from tests.search.toys import Toy, toy


def ladders_of(network: Toy) -> Ladders:
    return Ladders(network.errors, network.costs, network.budget)


def solved(network: Toy) -> tuple[int, ...]:
    return tuple(solve_budget(network.errors, network.costs, network.budget).choice.tolist())


def run(network: Toy, knobs: Knobs | None = None, seed: int = 0) -> Evolved:
    return evolve(solved(network), ladders_of(network), network.evaluate, np.random.default_rng(seed), knobs)


def seconds(network: Toy, plan: tuple[int, ...]) -> float:
    return sum(float(row[level]) for row, level in zip(network.costs, plan, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_finds_the_optimum_of_small_problems(seed):
    network = toy(seed, units=5, levels=5)
    plans = itertools.product(*(range(len(row)) for row in network.costs))
    optimum = min(network.loss(plan) for plan in plans if seconds(network, plan) <= network.budget)
    found = run(network, Knobs(patience=300), seed)
    assert found.loss == network.loss(tuple(found.choice.tolist())) == pytest.approx(optimum)


def test_keeps_the_budget_and_never_gets_worse():
    network = toy(1)
    found = run(network)
    assert all(seconds(network, plan) <= network.budget for plan in network.asked)
    assert found.loss == min(map(network.loss, network.asked)) < network.loss(solved(network))
    incumbents = [row.incumbent for row in found.trace]
    assert incumbents == sorted(incumbents, reverse=True)
    assert incumbents[-1] == found.loss


def test_sees_what_no_sum_of_layer_errors_can():
    """Neighbours that are both strongly compressed hurt each other: the best sum of the true errors is not best."""
    costs = [np.linspace(1, 0.1, 8)] * 6
    network = Toy(costs, np.linspace(1, 0.2, 6), np.full(6, 1.5), 3.0, interaction=20)
    true_errors = [s * (np.arange(8) / 7) ** 1.5 for s in network.sensitivities]
    best_sum = tuple(solve_budget(true_errors, costs, 3.0).choice.tolist())
    found = evolve(best_sum, Ladders(true_errors, costs, 3.0), network.evaluate, np.random.default_rng(0))
    assert found.loss < 0.9 * network.loss(best_sum)


def test_goes_on_where_the_search_for_sensitivities_ends():
    gains = []
    for seed in range(4):
        network = toy(seed)
        converged = search(network.errors, network.costs, network.budget, network.evaluate, np.random.default_rng(seed))
        ladders = ladders_of(network)
        found = evolve(converged.choice.tolist(), ladders, network.evaluate, np.random.default_rng(seed))
        gains.append(found.loss / converged.loss)
    assert max(gains) <= 1
    assert np.median(gains) < 0.99


def test_same_seed_same_plan():
    first, again, other = run(toy(2), seed=5), run(toy(2), seed=5), run(toy(2), seed=6)
    assert first.trace == again.trace
    assert first.choice.tolist() == again.choice.tolist()
    assert first.trace != other.trace


def test_mutants_spend_the_budget_and_differ_little():
    network = toy(3)
    ladders, rng = ladders_of(network), np.random.default_rng(0)
    parent = ladders.place(solved(network))
    for _ in range(200):
        plan, changes = ladders.mutated(parent, rng)
        places = ladders.place(plan)
        assert ladders.fits(places)
        assert changes == sum(a != b for a, b in zip(places, parent, strict=True))
        for unit in ladders.free:
            gentler = [place - (u == unit) for u, place in enumerate(places)]
            assert places[unit] == 0 or not ladders.fits(gentler), "what is left over is spent"


@pytest.mark.parametrize("factor", [0.8, 0.97, 1.0, 1.1])
def test_repair_brings_a_plan_to_another_budget(factor):
    network = toy(4)
    plan = solved(network)
    network.budget *= factor
    ladders = ladders_of(network)
    repaired = ladders.plan(ladders.repaired(ladders.place(plan)))
    assert seconds(network, repaired) <= network.budget
    errors = sum(row[level] for row, level in zip(network.errors, repaired, strict=True))
    assert errors <= 1.15 * solve_budget(network.errors, network.costs, network.budget).error


def test_limits_end_the_evolution():
    assert len(run(toy(5), Knobs(max_evaluations=21)).trace) == 21
    network = toy(5)
    assert len(run(network, Knobs(should_stop=lambda: True)).trace) == 1
    assert run(toy(5), Knobs(max_evaluations=1)).choice.tolist() == list(solved(toy(5)))


def test_what_the_search_before_knows_is_not_asked_again():
    memory, network = LossMemory(), toy(6)
    first = run(network, Knobs(memory=memory))
    again = toy(6)
    evolve(first.choice, ladders_of(again), again.evaluate, np.random.default_rng(9), Knobs(memory=memory))
    assert tuple(first.choice.tolist()) not in again.asked


def test_levels_that_another_one_beats_and_forbidden_ones_are_never_chosen():
    errors = [np.array([0.0, 0.1, 0.2, np.inf, 0.4]), np.array([0.0, 1.0, 1.0, 1.0, 1.0])]
    costs = [np.array([5.0, 6.0, 3.0, 1.0, 2.0]), np.array([5.0, np.inf, 4.0, 2.0, 2.0])]
    assert Ladders(errors, costs, 6.0).rungs == [[0, 2, 4], [0, 3]]


def test_a_start_over_the_budget_and_an_unreachable_budget_are_refused():
    network = toy(7)
    network.budget = 0.5 * min(seconds(network, (0,) * 16), network.budget)
    with pytest.raises(ValueError, match="within the budget"):
        evolve((0,) * 16, ladders_of(network), network.evaluate, np.random.default_rng(0))
    with pytest.raises(InfeasibleBudget, match="fastest"):
        Ladders(network.errors, network.costs, 1e-9).repaired([0] * 16)


def test_allocator_goes_on_from_a_former_plan():
    task = problem(0)
    first = ALLOCATORS["spdy-evolution"](task)
    phases = [phase for phase, _ in itertools.groupby(row.phase for row in first.trace)]
    assert phases[-1] == "evolution"
    assert [row.evaluation for row in first.trace] == list(range(1, len(first.trace) + 1))
    plain = ALLOCATORS["spdy"](problem(0))
    assert first.loss is not None
    assert first.loss <= (plain.loss or math.inf)
    tighter = replace(problem(0, share=0.45), start=first.choice.tolist())
    second = ALLOCATORS["spdy-evolution"](tighter)
    assert {row.phase for row in second.trace} == {"evolution"}
    assert tighter.cost(second.choice) <= tighter.budget_s
