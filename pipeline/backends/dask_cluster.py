"""Tasks on a dask cluster, by its own futures: joblib's dask backend waits for ever where a worker died too often."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any

from targets.errors import RuntimeMissingError

SCHEDULER_TIMEOUT_S = 20.0


class DaskCluster:
    """Workers of a dask cluster.

    Args:
        scheduler: such as ``tcp://10.0.0.1:8786``.

    Raises:
        RuntimeMissingError: dask.distributed is not installed, no scheduler answers, or it has no worker.
    """

    def __init__(self, scheduler: str) -> None:
        try:
            from distributed import Client, KilledWorker
        except ModuleNotFoundError:
            raise RuntimeMissingError("dask.distributed is not installed: pip install 'spdy-edge[dask]'") from None
        self.deaths: tuple[type[Exception], ...] = (CancelledError, KilledWorker)
        try:
            self._client: Any = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S)  # type: ignore[no-untyped-call]
        except OSError as error:
            raise RuntimeMissingError(
                f"No dask scheduler answers at {scheduler} ({error}). Start one with `dask scheduler`, workers with "
                f"`dask worker {scheduler}`."
            ) from None
        try:  # a task, not a look: clusters that grow by what is asked of them start their first worker for it
            self._client.submit(int).result(timeout=SCHEDULER_TIMEOUT_S)
        except TimeoutError:
            raise RuntimeMissingError(
                f"The dask scheduler at {scheduler} has no worker. Start some with `dask worker {scheduler}`, also on "
                "other machines."
            ) from None

    @property
    def count(self) -> int:
        """Threads of all workers that are there."""
        return max(1, int(sum(self._client.nthreads().values())))

    def compute(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for every task's arguments, as the results come; an error is the task's own.

        No more tasks are under way than twice the workers' threads.
        """
        from distributed import as_completed

        source, under_way = iter(tasks), set[Any]()
        finished: Any = as_completed([], loop=self._client.loop)  # type: ignore[no-untyped-call]
        try:
            while True:
                for arguments in islice(source, max(0, 2 * self.count - len(under_way))):  # there may be fewer by now
                    future = self._client.submit(function, *arguments, pure=False)
                    under_way.add(future)
                    finished.add(future)
                if not under_way:
                    return
                done = next(finished)
                under_way.remove(done)
                yield done.result()
        finally:
            self._client.cancel(list(under_way))
