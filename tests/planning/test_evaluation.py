import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calibration.batch_norm import batch_statistics
from pipeline.compression.stitch import Stitcher
from pipeline.planning.evaluation import CandidateLosses, outputs_of
from pipeline.planning.prefix import SharedPrefix
from pipeline.run_folder import Log
from tests.planning.stitched import BATCH, LEVELS, candidate_losses, candidates, database, inputs
from tests.training.networks import ADAPTER, UNITS, dense_network


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return database(tmp_path_factory.mktemp("database"))


def plans(count: int = 12) -> list[tuple[int, ...]]:
    """Different plans, half of them alike but for the last units."""
    rng = np.random.default_rng(0)
    found = [(1, 2, 0, 3, *rng.integers(0, len(LEVELS), 2)) for _ in range(count // 2)]
    found += [tuple(rng.integers(0, len(LEVELS), len(UNITS))) for _ in range(count // 2)]
    return list(dict.fromkeys(tuple(int(level) for level in plan) for plan in found))


def plain_losses(built, plan) -> list[float]:
    """Sums by batch with a network of its own, run from the start."""
    network = dense_network()
    Stitcher(network, built).apply({unit: LEVELS[i] for unit, i in zip(UNITS, plan, strict=True)})
    dense_outputs = torch.split(outputs_of(dense_network(), inputs(), BATCH), BATCH)
    with torch.no_grad(), batch_statistics(network):
        return [
            float(ADAPTER.calibration_loss(network(batch), expected).sum())
            for batch, expected in zip(torch.split(inputs(), BATCH), dense_outputs, strict=True)
        ]


def test_losses_are_those_of_each_plan_run_alone(built, tmp_path):
    losses = candidate_losses(built, tmp_path / "log")
    asked = plans()
    expected = [sum(plain_losses(built, plan)) / 128 for plan in asked]
    assert losses(asked, math.inf) == pytest.approx(expected, rel=1e-5)
    assert losses.costs.blocks_reused > 0.2 * losses.costs.blocks_run
    assert losses.costs.plans == len(asked)
    assert losses.costs.batches_run == losses.costs.batches_whole == 4 * len(asked)
    assert losses.costs.to_json()["plans_a_second"] > 0


def test_a_share_is_a_part_of_the_batches_and_is_not_run_again(built, tmp_path):
    losses = candidate_losses(built, tmp_path / "log")
    asked = plans(4)
    halves = losses(asked, math.inf, 0.5)
    assert halves == pytest.approx([sum(plain_losses(built, plan)[:2]) / 64 for plan in asked], rel=1e-5)
    assert losses.costs.batches_run == 2 * len(asked)
    assert losses(asked[:1], math.inf) == pytest.approx([sum(plain_losses(built, asked[0])) / 128], rel=1e-5)
    assert losses.costs.batches_run == 2 * len(asked) + 2
    assert losses(asked, math.inf, 0.5) == halves
    assert losses.costs.batches_run == 2 * len(asked) + 2


def test_hopeless_plans_stop_early_with_a_bound(built, tmp_path):
    losses = candidate_losses(built, tmp_path / "log")
    worst, gentle = (len(LEVELS) - 1,) * len(UNITS), (0,) * (len(UNITS) - 1) + (1,)
    limit = 0.3 * sum(plain_losses(built, worst)) / 128
    bound, loss = losses([worst, gentle], limit)
    assert limit < bound < sum(plain_losses(built, worst)) / 128
    assert loss == pytest.approx(sum(plain_losses(built, gentle)) / 128, rel=1e-5)
    assert losses.costs.batches_run < losses.costs.batches_whole
    assert losses([worst], math.inf) == pytest.approx([sum(plain_losses(built, worst)) / 128], rel=1e-5)


def test_a_plan_that_proves_worse_batch_by_batch_is_given_up_and_a_better_one_never(built, tmp_path):
    """Sixteen batches; the limit is the loss of a plan in the middle, and every plan is asked for beside it."""
    losses = CandidateLosses(replace(candidates(built), batch_size=8), Log(tmp_path / "log", "key"))
    truth = CandidateLosses(replace(candidates(built), batch_size=8), Log(tmp_path / "other log", "key"))
    asked = plans(24)
    known = dict(zip(asked, truth(asked, math.inf), strict=True))
    middle = sorted(asked, key=lambda plan: known[plan])[len(asked) // 3]
    limit = losses([middle], math.inf)[0]
    found = dict(zip(asked, losses(asked, limit), strict=True))
    better = [plan for plan in asked if known[plan] <= limit]
    assert [found[plan] for plan in better] == pytest.approx([known[plan] for plan in better])
    assert min(found[plan] for plan in asked if plan not in better) > limit
    assert losses.costs.batches_run < 0.75 * truth.costs.batches_run
    resumed = CandidateLosses(replace(candidates(built), batch_size=8), Log(tmp_path / "log", "key"))
    assert resumed([middle], math.inf) == [limit]
    assert dict(zip(asked, resumed(asked, limit), strict=True)) == found
    assert resumed.costs.batches_run == 0


def test_what_a_plan_loses_later_decides_nothing_and_infinity_is_no_rival(built, tmp_path):
    """Sums by batch as a log has them: of an infinite plan, the one to beat, and one worse at once, infinite later."""
    log = Log(tmp_path / "log", "key")
    broken, rival, worse, worse_and_seen = [(level,) * len(UNITS) for level in range(4)]
    ones = np.ones(16) + 0.01 * np.random.default_rng(0).standard_normal(16)
    log.add(",".join(map(str, broken)), [*ones[:3], math.inf, *ones[4:]])
    log.add(",".join(map(str, rival)), list(ones))
    log.add(",".join(map(str, worse)), list(1.2 * ones[:4]))
    log.add(",".join(map(str, worse_and_seen)), [*(1.2 * ones[:4]), math.inf, *ones[5:]])
    losses = CandidateLosses(replace(candidates(built), batch_size=8), log)
    assert losses([broken], math.inf) == [math.inf]
    (limit,) = losses([rival], math.inf)
    assert limit == pytest.approx(ones.mean() / 8)
    assert losses([worse, worse_and_seen], limit) == [math.nextafter(limit, math.inf)] * 2
    assert losses.costs.batches_run == 0


def test_a_resumed_search_finds_what_was_computed(built, tmp_path):
    asked = plans(4)
    first = candidate_losses(built, tmp_path / "log")
    found = first(asked, math.inf, 0.5)
    resumed = candidate_losses(built, tmp_path / "log")
    assert resumed(asked, math.inf, 0.5) == found
    assert resumed.costs.batches_run == 0


def test_losses_that_are_not_finite_count_as_infinite(built, tmp_path):
    network = dense_network()
    losses = candidate_losses(built, tmp_path / "log", network)
    with torch.no_grad():
        network.get_parameter("linear.bias").fill_(math.nan)
    assert losses([(0,) * len(UNITS)], 1.0) == [math.inf]


class Counted(nn.Linear):
    """Counts how often it really runs."""

    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x)


class Chain(nn.Module):
    """Four blocks; what follows the first one changes its output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Counted(4, 4, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.blocks[0](x)
        first.relu_()
        return self.blocks[3](self.blocks[2](self.blocks[1](first)))


def test_only_what_may_have_changed_is_run_again():
    torch.manual_seed(0)
    chain, x = Chain(), torch.randn(2, 4)
    names = [f"blocks.{i}" for i in range(4)]
    prefix = SharedPrefix(chain, names, [[name] for name in names], x[:1])

    def runs() -> list[int]:
        found = [block.runs for block in chain.blocks]
        for block in chain.blocks:
            block.runs = 0
        return found

    runs()
    with torch.no_grad():
        outputs = prefix(x, (0, 0, 0, 0))
        assert runs() == [1, 1, 1, 1]
        chain.blocks[3].weight.mul_(2)
        assert torch.equal(prefix(x, (0, 0, 0, 1)), 2 * outputs)
        assert runs() == [1, 0, 0, 1], "the first block's output was changed in place, and is not used again"
        chain.blocks[1].weight.mul_(3)
        assert torch.allclose(prefix(x, (0, 1, 0, 1)), 6 * outputs)
        assert runs() == [1, 1, 1, 1]
        assert prefix.forget() == (10, 2)
        assert torch.allclose(prefix(2 * x, (0, 1, 0, 1)), 12 * outputs)
        assert runs() == [1, 1, 1, 1]
        assert prefix.forget() == (4, 0)
    assert all("forward" not in vars(block) for block in chain.blocks)
