"""Tasks on joblib's backends: threads and processes of this machine."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any


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
        import joblib

        with joblib.parallel_config(backend=self._backend, n_jobs=self._count or -1):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
            yield from parallel(joblib.delayed(function)(*arguments) for arguments in tasks)
