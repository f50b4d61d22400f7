"""Work on many processors: in this process, in threads or processes beside it, on other hosts through dask or ray."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from pipeline.backends.dask_cluster import DaskCluster
from pipeline.backends.joblib_pools import JoblibPool
from pipeline.backends.ray_cluster import RayCluster
from targets.errors import ConfigError, UserError

Result = TypeVar("Result")
Tasks = Iterable[tuple[str, tuple[Any, ...]]]
"""Names, no two alike, and arguments; read as work progresses, so that few of them need memory at a time."""

ATTEMPTS = 3
"""Times that tasks are handed out where workers die and nothing comes of it; dask and ray repeat a task themselves
before that."""


class Compute(Protocol):
    """Calls a function for every task, and gives names and results in the order in which they come."""

    def __call__(self, function: Callable[..., Result], tasks: Tasks) -> Iterator[tuple[str, Result]]:
        """The function is one of a module, which workers import."""


class Pool(Protocol):
    """Workers of one kind."""

    @property
    def count(self) -> int:
        """About how many tasks are worked on at a time."""

    @property
    def deaths(self) -> tuple[type[Exception], ...]:
        """What is raised where workers died, or the way to them was cut."""

    def compute(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for every task's arguments, as the results come."""


def compute_here(function: Callable[..., Result], tasks: Tasks) -> Iterator[tuple[str, Result]]:
    """One after the other."""
    for name, arguments in tasks:
        yield name, function(*arguments)


class Workers:
    """Where work that falls into tasks is done.

    What a task gives depends on its arguments alone, and who asks puts results in the order of its own: the same plan
    is found wherever tasks run, whichever worker is first.

    Args:
        backend: ``here`` is this process; ``threading`` and ``loky`` (processes) are joblib's; ``dask``, ``ray``.
        scheduler: of a dask or ray cluster, such as ``tcp://10.0.0.1:8786`` or ``10.0.0.1:6379``; without one,
            ray starts its workers on this machine.
        count: processes or threads; None for as many as there are processors, or as the cluster has workers.

    Raises:
        ConfigError: a scheduler without a cluster's backend, dask without a scheduler, or a number of workers for a
            backend that does not take it.
        RuntimeMissingError: the backend is not installed, or no cluster answers.
    """

    def __init__(self, backend: str = "here", scheduler: str | None = None, count: int | None = None) -> None:
        if backend != "ray" and (backend == "dask") != bool(scheduler):
            raise ConfigError(
                "--backend dask and --scheduler tcp://HOST:PORT belong together: say both or neither. --backend ray "
                "takes --scheduler HOST:PORT, or works on this machine alone."
            )
        if count is not None and (backend == "here" or scheduler):
            raise ConfigError(
                f"--workers {count} is for --backend threading, loky and ray on this machine: --backend here works in "
                "this process, and a cluster has the workers that it has."
            )
        self._pool = _pool(backend, scheduler, count)

    @property
    def is_here(self) -> bool:
        """Whether tasks are done one after the other in this process."""
        return self._pool is None

    @property
    def count(self) -> int:
        """About how many tasks are worked on at a time."""
        return 1 if self._pool is None else self._pool.count

    def compute(self, function: Callable[..., Result], tasks: Tasks) -> Iterator[tuple[str, Result]]:
        """Call a function for every task; see `Compute`. Tasks of a worker that dies are done by another one.

        Raises:
            UserError: workers died again and again.
        """
        if self._pool is None:
            yield from compute_here(function, tasks)
            return
        threads = torch.get_num_threads()
        source = _Source(tasks)
        waiting: dict[str, tuple[Any, ...]] = {}
        try:
            deaths = 0
            while deaths < ATTEMPTS:
                try:
                    named = ((function, name, arguments) for name, arguments in source.hand_out(waiting))
                    for name, result in self._pool.compute(_named, named):
                        del waiting[name]
                        deaths = 0  # in hours of work workers may die for reasons of their own
                        yield name, result
                    return
                except self._pool.deaths:
                    deaths += 1
            raise UserError(
                f"Workers died {ATTEMPTS} times, last while they worked on {', '.join(list(waiting)[:3])}. Give them "
                "more memory, or use fewer at a time with --workers. What was finished is kept."
            )
        finally:
            torch.set_num_threads(threads)


def _pool(backend: str, scheduler: str | None, count: int | None) -> Pool | None:
    """None for this process."""
    if backend == "ray":
        return RayCluster(scheduler, count, ATTEMPTS)
    if scheduler:
        return DaskCluster(scheduler)
    return None if backend == "here" else JoblibPool(backend, count)


class _Source:
    """Hands out tasks that no attempt has handed out before, after those that are still waiting for a result."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks, self._lock = iter(tasks), threading.Lock()

    def hand_out(self, waiting: dict[str, tuple[Any, ...]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        yield from list(waiting.items())
        while True:
            with self._lock:
                task = next(self._tasks, None)
            if task is None:
                return
            waiting[task[0]] = task[1]
            yield task


def _named(function: Callable[..., Result], name: str, arguments: tuple[Any, ...]) -> tuple[str, Result]:
    return name, function(*arguments)
