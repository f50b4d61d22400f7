import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.backends.workers import Workers
from pipeline.compression.database import Database
from pipeline.planning.evaluation import CandidateLosses, CandidateNetwork
from pipeline.run_folder import Log
from pipeline.search.evolution import Ladders, evolve
from pipeline.search.spdy import Knobs, search
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError, UserError
from tests.backends.dask_cluster import dask_cluster
from tests.backends.worker_tasks import die, square, square_once_killed
from tests.planning.stitched import LEVELS, candidates, database
from tests.training.networks import UNITS

NUMBERS = range(12)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return database(tmp_path_factory.mktemp("database"))


@pytest.mark.parametrize("backend", ["here", "threading", "loky"])
def test_every_task_gives_its_own_result(backend):
    workers = Workers(backend, count=None if backend == "here" else 2)
    found = dict(workers.compute(square, ((str(number), (number,)) for number in NUMBERS)))
    assert found == {str(number): number**2 for number in NUMBERS}


def test_a_worker_that_dies_costs_its_own_task_alone(tmp_path):
    tasks = [(str(number), (number, str(tmp_path), 5)) for number in NUMBERS]
    found = dict(Workers("loky", count=2).compute(square_once_killed, tasks))
    assert found == {str(number): number**2 for number in NUMBERS}
    calls = {number: len(list(tmp_path.glob(f"{number}-*"))) for number in NUMBERS}
    assert calls[5] == 2
    assert sum(calls.values()) <= len(NUMBERS) + 2 * 2, "only what was under way is done again"


def test_workers_that_always_die_are_an_error_and_not_an_endless_loop():
    with pytest.raises(UserError, match="died 3 times"):
        list(Workers("loky", count=2).compute(die, [("only", (1,))]))


def test_an_error_of_a_task_is_told_as_it_is():
    with pytest.raises(TypeError):
        list(Workers("loky", count=2).compute(square, [("text", ("text",))]))


@pytest.mark.parametrize(("backend", "scheduler"), [("dask", None), ("loky", "tcp://127.0.0.1:1")])
def test_a_scheduler_belongs_to_dask(backend, scheduler):
    with pytest.raises(ConfigError, match="belong together"):
        Workers(backend, scheduler)


def best_plans(built: Database, log, workers: Workers | None, shared) -> tuple[list[int], list[int], list[float]]:
    """What both searches find on the small network, and the losses on the way."""
    losses = CandidateLosses(replace(candidates(built), batch_size=8), Log(log, "key"), workers, shared)
    table = built.errors()
    costs = np.array([[1 - 0.9 * level.amount for level in LEVELS]] * len(UNITS))
    rng, budget = np.random.default_rng(0), 0.45 * len(UNITS)
    searched = search(list(table), list(costs), budget, losses, rng, Knobs(starts=8, patience=4, batch=4))
    start = searched.choice.tolist()
    knobs = Knobs(max_evaluations=24)
    evolved = evolve(start, Ladders(list(table), list(costs), budget), losses, rng, knobs)
    trace = [row.loss for row in (*searched.trace, *evolved.trace)]
    return start, evolved.choice.tolist(), trace


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_same_seed_same_plan_on_every_backend(built, tmp_path, backend):
    here = best_plans(built, tmp_path / "here", None, None)
    there = best_plans(built, tmp_path / "there", Workers(backend, count=2), tmp_path)
    assert there[:2] == here[:2]
    assert there[2] == pytest.approx(here[2], rel=1e-4)


def test_workers_are_spared_what_this_process_would_be(built, tmp_path):
    hopeless, gentle = (len(LEVELS) - 1,) * len(UNITS), (0,) * (len(UNITS) - 1) + (1,)
    runs = []
    for name, workers in (("here", None), ("there", Workers("threading", count=2))):
        small = replace(candidates(built), batch_size=8)
        losses = CandidateLosses(small, Log(tmp_path / name, "key"), workers, tmp_path)
        (limit,) = losses([gentle], math.inf)
        assert losses([hopeless], limit)[0] > limit
        runs.append(losses.costs.batches_run)
    here, there = runs
    assert here < 16 + 16
    assert here <= there <= here + 1


def test_threads_make_a_network_each_and_no_more(built, tmp_path, monkeypatch):
    made = []

    class Counted(CandidateNetwork):
        def __init__(self, candidates):
            made.append(1)
            super().__init__(candidates)

    monkeypatch.setattr("pipeline.planning.evaluation.CandidateNetwork", Counted)
    losses = CandidateLosses(candidates(built), Log(tmp_path / "log", "key"), Workers("threading", count=2), tmp_path)
    for level in range(1, len(LEVELS)):
        losses([(level,) * len(UNITS)], math.inf)
    assert 1 <= len(made) <= 2


def test_a_later_search_leaves_no_earlier_candidates_behind(built, tmp_path):
    for inputs_of in (candidates(built), replace(candidates(built), batch_size=8)):
        CandidateLosses(inputs_of, Log(tmp_path / "log", "key"), Workers("threading", count=1), tmp_path)
    assert len(list(tmp_path.glob("candidates-*.pickle"))) == 1


def test_workers_refuse_a_file_that_was_altered(built, tmp_path):
    losses = CandidateLosses(candidates(built), Log(tmp_path / "log", "key"), Workers("threading", count=1), tmp_path)
    (file,) = tmp_path.glob("candidates-*.pickle")
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(ArtifactError, match="altered"):
        losses([(1,) * len(UNITS)], 1.0)


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("pipeline.backends.dask_cluster.SCHEDULER_TIMEOUT_S", 2.0)
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'spdy-edge[dask]'")
    with pytest.raises(RuntimeMissingError, match="dask worker"):
        Workers("dask", "tcp://127.0.0.1:1")


@pytest.mark.parametrize(("address", "error"), [("127.0.0.1:1", RuntimeMissingError), ("nowhere", ConfigError)])
def test_a_ray_cluster_that_is_not_there_is_named(address, error):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'spdy-edge[ray]'")
    with pytest.raises(error, match="HOST:"):
        Workers("ray", address)
    with pytest.raises(ConfigError, match="--workers"):
        Workers("ray", address, count=2)


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_half_way_finds_the_same_plan(built, tmp_path):
    pytest.importorskip("distributed", reason="dask.distributed is not installed: pip install 'spdy-edge[dask]'")
    here = best_plans(built, tmp_path / "here", None, None)
    with dask_cluster(tmp_path) as cluster:
        workers = Workers("dask", cluster.address)
        assert workers.count == 2
        again = database(tmp_path / "database", workers.compute)
        assert again.errors().tolist() == built.errors().tolist()
        log = tmp_path / "there"
        killer = threading.Thread(target=_kill_after, args=(cluster, log, 6))
        killer.start()
        there = best_plans(built, log, workers, tmp_path)
        killer.join()
        assert workers.count == 1
    assert there[:2] == here[:2]


@pytest.mark.slow
def test_dask_tells_deaths_and_errors_as_they_are(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="pip install 'spdy-edge[dask]'")
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        workers = Workers("dask", cluster.scheduler_address)
        assert dict(workers.compute(square, [("3", (3,))])) == {"3": 9}  # one worker is a cluster, too
        with pytest.raises(TypeError, match=r"^can't multiply"):
            list(workers.compute(square, [("text", ("text",))]))
        with pytest.raises(UserError, match="died 3 times"):
            list(workers.compute(die, [("only", (1,))]))
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty:
        monkeypatch.setattr("pipeline.backends.dask_cluster.SCHEDULER_TIMEOUT_S", 10.0)
        with pytest.raises(RuntimeMissingError, match="has no worker"):
            Workers("dask", empty.scheduler_address)


@pytest.fixture(scope="module")
def ray_workers():
    """Two processes that ray starts on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'spdy-edge[ray]'")
    yield Workers("ray", count=2)
    ray.shutdown()


@pytest.mark.slow
def test_ray_repeats_the_task_of_a_worker_that_dies(ray_workers, tmp_path):
    assert ray_workers.count == 2
    tasks = [(str(number), (number, str(tmp_path), 5)) for number in NUMBERS]
    assert dict(ray_workers.compute(square_once_killed, tasks)) == {str(number): number**2 for number in NUMBERS}
    calls = {number: len(list(tmp_path.glob(f"{number}-*"))) for number in NUMBERS}
    assert calls.pop(5) == 2
    assert set(calls.values()) == {1}


@pytest.mark.slow
def test_ray_tells_deaths_and_errors_as_they_are(ray_workers):
    with pytest.raises(UserError, match="died 3 times"):
        list(ray_workers.compute(die, [("only", (1,))]))
    with pytest.raises(TypeError, match=r"^can't multiply"):
        list(ray_workers.compute(square, [("text", ("text",))]))


@pytest.mark.slow
def test_ray_builds_the_same_database_and_finds_the_same_plan(built, ray_workers, tmp_path):
    again = database(tmp_path / "database", ray_workers.compute)
    assert again.errors().tolist() == built.errors().tolist()
    here = best_plans(built, tmp_path / "here", None, None)
    assert best_plans(built, tmp_path / "there", ray_workers, tmp_path)[:2] == here[:2]


def _kill_after(cluster, log, lines: int) -> None:
    """Kill a worker once so many losses are known."""
    tick = threading.Event()
    while not log.exists() or len(log.read_text().splitlines()) <= lines:
        tick.wait(0.05)
    cluster.kill_one()
