import pytest
import torch

from pipeline.compression.stitch import Stitcher
from targets.errors import ArtifactError
from targets.levels import DENSE, Level


def test_apply_and_restore(job, database, levels):
    dense = {name: value.clone() for name, value in job.model.state_dict().items()}
    stitcher = Stitcher(job.model, database)
    stitcher.apply({"unit 0": levels[2], "unit 5": levels[5], "unit 2": DENSE, "first convolution": DENSE})
    state = job.model.state_dict()
    torch.testing.assert_close(state["0.weight"], torch.from_numpy(database.get("unit 0", levels[2])[0]))
    torch.testing.assert_close(state["5.weight"], torch.from_numpy(database.get("unit 5", levels[5])[0]))
    assert torch.equal(state["2.weight"], dense["2.weight"])
    stitcher.apply({"unit 2": levels[1]})
    assert torch.equal(state["0.weight"], dense["0.weight"])
    assert (state["2.weight"] == 0).any()
    stitcher.apply({})
    assert all(torch.equal(value, dense[name]) for name, value in job.model.state_dict().items())


def test_only_changed_units_are_written(job, database, levels):
    stitcher = Stitcher(job.model, database)
    stitcher.apply({"unit 0": levels[2], "unit 2": levels[2]})
    versions = [job.model[i].weight._version for i in (0, 2, 5)]
    stitcher.apply({"unit 0": levels[2], "unit 2": levels[3]})
    assert [job.model[i].weight._version - before for i, before in zip((0, 2, 5), versions, strict=True)] == [0, 1, 0]


@pytest.mark.parametrize("cache_bytes", [0, 2000, 2**30])
def test_results_do_not_depend_on_the_cache_and_it_keeps_its_bound(job, database, levels, cache_bytes):
    stitcher = Stitcher(job.model, database, cache_bytes)
    for level in (*levels, *levels[::-1]):
        stitcher.apply(dict.fromkeys(database.units, level))
        for unit, module in zip(database.units, "025", strict=True):
            expected = torch.from_numpy(database.get(unit, level)[0])
            assert torch.equal(job.model.get_submodule(module).weight, expected)
        held = sum(weight.nbytes for weight in stitcher._cache.values())
        assert held <= cache_bytes
        assert cache_bytes - held == stitcher._free_bytes


def test_impossible_plans_change_nothing(job, database, levels):
    stitcher = Stitcher(job.model, database)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    for plan in ({"unit 0": levels[1], "nowhere": levels[1]}, {"unit 0": levels[1], "unit 5": Level("channel", 0.5)}):
        with pytest.raises(ArtifactError, match=r"no unit nowhere|no level channel"):
            stitcher.apply(plan)
        assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())


def test_network_that_the_database_was_not_built_from(job, database):
    with torch.no_grad():
        job.model[2].weight += 1
    with pytest.raises(ArtifactError, match="unit 2 differs"):
        Stitcher(job.model, database)
    with pytest.raises(ArtifactError, match="which the network has not"):
        Stitcher(job.model[:5], database)
