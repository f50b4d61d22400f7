import itertools
import math

import numpy as np
import pytest

from pipeline.search.budget_dp import InfeasibleBudget, solve_budget
from pipeline.search.losses import Evaluate, Judgement, LossMemory
from pipeline.search.spdy import Knobs, SearchResult, search
from tests.search.toys import Toy, toy

QUICK = Knobs(starts=20, patience=15)


def constant(loss: float) -> Evaluate:
    return lambda plans, limit, share=1.0: [loss] * len(plans)


def run(network: Toy, knobs: Knobs = QUICK, seed: int = 0) -> SearchResult:
    return search(network.errors, network.costs, network.budget, network.evaluate, np.random.default_rng(seed), knobs)


def test_result_is_the_best_plan_evaluated_and_meets_the_budget():
    network = toy(0)
    result = run(network)
    assert result.loss == network.loss(tuple(result.choice)) == min(map(network.loss, network.asked))
    assert sum(row[level] for row, level in zip(network.costs, result.choice, strict=True)) <= network.budget
    weighed = [c * row for c, row in zip(result.coefficients, network.errors, strict=True)]
    assert solve_budget(weighed, network.costs, network.budget).choice.tolist() == result.choice.tolist()


def test_incumbent_never_worsens_and_trace_tells_every_evaluation():
    network = toy(1)
    result = run(network)
    assert [row.evaluation for row in result.trace] == list(range(1, len(network.asked) + 1))
    assert [row.loss for row in result.trace] == [network.loss(plan) for plan in network.asked]
    incumbents = [row.incumbent for row in result.trace]
    assert incumbents == list(itertools.accumulate((row.loss for row in result.trace), min))
    assert incumbents[-1] == result.loss
    phases = [phase for phase, _ in itertools.groupby(row.phase for row in result.trace)]
    assert phases == ["random", "neighbourhood"]
    sizes = [row.neighbourhood for row in result.trace]
    assert sizes[0] == 0
    assert set(sizes[QUICK.starts :]) <= {2, 1}, "ceil(0.1 x 16) coefficients, then one fewer"
    assert sizes[QUICK.starts :] == sorted(sizes[QUICK.starts :], reverse=True)


def test_same_seed_same_plan():
    first, again, other = run(toy(2), seed=5), run(toy(2), seed=5), run(toy(2), seed=6)
    assert first.choice.tolist() == again.choice.tolist()
    assert first.coefficients.tolist() == again.coefficients.tolist()
    assert first.trace == again.trace
    assert first.trace != other.trace


def test_no_plan_is_evaluated_twice():
    network = toy(3, units=5, levels=4)
    run(network, Knobs(starts=200, patience=50))
    assert len(network.asked) == len(set(network.asked)) < 250


def test_stopping_hopeless_evaluations_early_changes_nothing_but_their_losses():
    patient, hasty = run(toy(4)), run(toy(4, stops_early=True))
    assert hasty.choice.tolist() == patient.choice.tolist()
    assert [row.incumbent for row in hasty.trace] == [row.incumbent for row in patient.trace]


def test_beats_random_search_at_equal_evaluations():
    searched, guessed = [], []
    for seed in range(8):
        result = run(toy(seed), Knobs(starts=20, patience=20), seed)
        searched.append(result.loss)
        drawn = run(toy(seed), Knobs(starts=2000, patience=0, max_evaluations=len(result.trace)), seed)
        assert len(drawn.trace) == len(result.trace)
        guessed.append(drawn.loss)
    ratio = np.array(searched) / np.array(guessed)
    assert (ratio <= 1).all()
    assert np.median(ratio) < 0.95


def test_learns_which_unit_is_sensitive():
    """Eight equal units, of which the loss feels only two: these must keep what the budget spares."""
    costs = [np.linspace(1, 0.1, 10)] * 8
    sensitivities = np.full(8, 1e-3)
    sensitivities[[2, 5]] = 1
    network = Toy(costs, sensitivities, np.full(8, 2.0), 4.0)
    result = run(network, Knobs(starts=50, patience=50))
    assert max(result.choice[[2, 5]]) < min(np.delete(result.choice, [2, 5]))


def test_scaling_the_coefficients_changes_nothing():
    network = toy(6)
    start = np.random.default_rng(0).uniform(size=len(network.costs))
    one, other = (run(network, Knobs(starts=0, patience=0, extra_starts=[start * k])) for k in (1, 1000))
    assert one.choice.tolist() == other.choice.tolist()


def test_warm_start_continues_from_the_former_incumbent():
    first = run(toy(7))
    tighter = toy(7)
    tighter.budget *= 0.97
    cold = run(tighter, Knobs(starts=1, patience=0))
    warm = run(tighter, Knobs(starts=0, patience=0, extra_starts=[first.coefficients]))
    assert [row.phase for row in warm.trace] == ["given"]
    assert warm.loss < cold.loss


def test_memory_spares_the_next_round_what_is_known():
    memory = LossMemory()
    knobs = Knobs(starts=20, patience=15, memory=memory)
    first = run(toy(8), knobs)
    again = toy(8)
    repeated = run(again, knobs)
    assert repeated.choice.tolist() == first.choice.tolist()
    assert again.asked == []
    assert repeated.trace == ()


def test_memory_of_a_loss_cut_short_is_no_loss():
    memory = LossMemory()
    memory.store((1,), Judgement(0.6, complete=False))
    memory.store((2,), Judgement(0.4, complete=True))
    assert memory.recall((1,), limit=0.5) == 0.6
    assert memory.recall((1,), limit=0.9) is None, "0.6 is only what it had reached when it was stopped"
    assert memory.recall((2,), limit=0.1) == memory.recall((2,), limit=0.9) == 0.4
    assert memory.recall((3,), limit=math.inf) is None


def test_limits_end_the_search_with_the_incumbent():
    assert len(run(toy(9), Knobs(max_evaluations=7)).trace) == 7
    network = toy(9)
    stopped = run(network, Knobs(should_stop=lambda: len(network.asked) >= 3))
    assert len(stopped.trace) == 3
    assert stopped.loss == min(map(network.loss, network.asked))
    at_once = run(toy(9), Knobs(should_stop=lambda: True))
    assert len(at_once.trace) == 1, "a search that is stopped at once still has a plan"


def test_progress_counts_down():
    told = []
    result = run(toy(10), Knobs(starts=20, patience=15, on_progress=told.append))
    assert [(p.evaluations, p.loss) for p in told] == [(row.evaluation, row.incumbent) for row in result.trace]
    assert told[0].evaluations_left == 20 + 2 * 15 - 1
    assert 0 <= told[-1].evaluations_left < 15
    told.clear()
    run(toy(10), Knobs(max_evaluations=30, on_progress=told.append))
    assert [p.evaluations_left for p in told] == list(range(29, -1, -1))


def test_units_without_a_choice_are_charged_and_take_no_part():
    network = toy(11, units=6, levels=8)
    dense = 1e-3
    errors, costs = [np.zeros(1), *network.errors], [np.array([dense]), *network.costs]

    def evaluate(plans, limit, share=1.0):
        assert {plan[0] for plan in plans} == {0}
        return network.evaluate([plan[1:] for plan in plans], limit)

    result = search(errors, costs, network.budget + dense, evaluate, np.random.default_rng(0), QUICK)
    assert dense + sum(row[i] for row, i in zip(network.costs, result.choice[1:], strict=True)) <= (
        network.budget + dense
    )
    only_fixed = search([np.zeros(1)], [np.array([1.0])], 1.0, constant(0.5), np.random.default_rng(0))
    assert (only_fixed.choice.tolist(), only_fixed.loss) == ([0], 0.5)


def test_a_forbidden_level_is_never_chosen_even_by_an_insensitive_unit():
    errors, costs = [np.array([0.0, np.inf, 1.0])], [np.array([3.0, 1.0, 2.0])]
    knobs = Knobs(starts=0, patience=0, extra_starts=[[0.0]])
    assert search(errors, costs, 2.5, constant(1.0), np.random.default_rng(0), knobs).choice.tolist() == [2]


def test_plans_whose_loss_is_nan_lose():
    network = toy(12)

    def evaluate(plans, limit, share=1.0):
        losses = network.evaluate(plans, limit)
        return [math.nan] if len(network.asked) % 2 else losses

    result = search(network.errors, network.costs, network.budget, evaluate, np.random.default_rng(0), QUICK)
    assert result.loss == min(network.loss(plan) for plan in network.asked[1::2])
    broken = search(network.errors, network.costs, network.budget, constant(math.nan), np.random.default_rng(0), QUICK)
    assert broken.loss == math.inf


def test_infeasible_budget_carries_the_cheapest_plan():
    network = toy(13)
    network.budget *= 1e-3
    with pytest.raises(InfeasibleBudget) as raised:
        run(network)
    assert raised.value.cheapest == pytest.approx(sum(row.min() for row in network.costs))
    assert network.asked == []


@pytest.mark.parametrize("start", [[1.0], [-1.0] * 16, [math.nan] * 16, [math.inf] * 16])
def test_bad_extra_starts(start):
    with pytest.raises(ValueError, match="16 finite coefficients"):
        run(toy(14), Knobs(extra_starts=[start]))


@pytest.mark.parametrize("knobs", [{"starts": 0}, {"starts": -1}, {"patience": -1}, {"max_evaluations": 0}])
def test_bad_knobs(knobs):
    with pytest.raises(ValueError, match=r"start|patience|max_evaluations"):
        Knobs(**knobs)


def test_batches_are_judged_in_races_and_find_as_good_plans():
    ratios = []
    for seed in range(6):
        network = toy(seed)
        raced = run(network, Knobs(starts=24, patience=24, batch=8), seed)
        assert raced.loss == network.loss(tuple(raced.choice)) == min(map(network.loss, network.asked))
        assert len(raced.trace) == len(set(network.asked))
        ratios.append(raced.loss / run(toy(seed), Knobs(starts=24, patience=24), seed).loss)
    assert np.median(ratios) < 1.02


def test_a_batch_never_exceeds_the_evaluations_allowed():
    assert len(run(toy(9), Knobs(max_evaluations=13, batch=8)).trace) == 13


def test_a_plan_that_lost_a_race_is_not_the_incumbent_however_lucky_it_was():
    """On a quarter of the data a bad plan looks perfect: it may reach the final, where its real loss is seen."""
    network = toy(3)

    def evaluate(plans, limit, share=1.0):
        losses = network.evaluate(plans, limit)
        return [1 / (1 + loss) for loss in losses] if share < 1 else losses

    result = search(
        network.errors, network.costs, network.budget, evaluate, np.random.default_rng(0), Knobs(starts=8, batch=8)
    )
    assert result.loss == network.loss(tuple(result.choice))
