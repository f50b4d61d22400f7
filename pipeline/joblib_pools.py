"""Tasks on joblib's backends: threads and processes of this machine, or workers of a dask cluster."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from typing import Any

from targets.errors import RuntimeMissingError

SCHEDULER_TIMEOUT_S = 20.0


class JoblibPool:
    """Threads or processes beside this process.

    Args:
        backend: joblib's ``threading`` or ``loky``.
        count: of them; None for as many as there are processors.
    """

    deaths: tuple[type[Exception], ...] = (BrokenExecutor,)
    """What is raised where workers died."""

    def __init__(self, backend: str, count: int | None) -> None:
        self._backend, self._count = backend, count

    @property
    def count(self) -> int:
        """About how many tasks are worked on at a time."""
        import joblib

        return self._count or int(joblib.cpu_count())

    def compute(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for every task's arguments, as the results come."""
        return _parallel(function, tasks, backend=self._backend, n_jobs=self._count or -1)


class DaskPool:
    """Workers of a dask cluster.

    Args:
        scheduler: such as ``tcp://10.0.0.1:8786``.

    Raises:
        RuntimeMissingError: dask.distributed is not installed, or no scheduler answers.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ModuleNotFoundError:
            raise RuntimeMissingError("dask.distributed is not installed: pip install 'spdy-edge[dask]'") from None
        self.deaths: tuple[type[Exception], ...] = (CancelledError, KilledWorker)
        try:
            self._client: Any = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S, set_as_default=True)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise RuntimeMissingError(
                f"No dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler`, workers with "
                f"`dask worker {scheduler}`."
            ) from None

    @property
    def count(self) -> int:
        """Threads of all workers that are there."""
        return max(1, int(sum(self._client.nthreads().values())))

    def compute(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for every task's arguments, as the results come."""
        return _parallel(function, tasks, backend="dask")


def _parallel(function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], **settings: Any) -> Iterator[Any]:
    import joblib

    with joblib.parallel_config(**settings):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from parallel(joblib.delayed(function)(*arguments) for arguments in tasks)
