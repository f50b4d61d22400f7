"""Tasks on a ray cluster. joblib's ray backend hands nothing out before everything is done, so that it is not used."""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from targets.errors import ConfigError, RuntimeMissingError

ANSWER_TIMEOUT_S = 10.0


class RayCluster:
    """A ray cluster, or workers that ray starts on this machine.

    Args:
        address: such as ``10.0.0.1:6379``; None for what ``RAY_ADDRESS`` says, or this machine.
        count: of workers on this machine; None for as many as there are processors.
        retries: times that ray repeats a task whose worker died.

    Raises:
        ConfigError: an address without a port, or a count of workers where a cluster has its own.
        RuntimeMissingError: ray is not installed, or nothing answers at the address.
    """

    def __init__(self, address: str | None, count: int | None, retries: int) -> None:
        try:
            import ray
        except ModuleNotFoundError:
            raise RuntimeMissingError("ray is not installed: pip install 'spdy-edge[ray]'") from None
        self._ray: Any = ray
        self._retries = retries
        if count and (address or os.environ.get("RAY_ADDRESS")):
            raise ConfigError("--workers is for workers that ray starts on this machine: the cluster has its own.")
        settings: dict[str, Any] = {"address": address} if address else {"num_cpus": count}
        try:
            if address:
                _knock(address)
            ray.init(**settings, ignore_reinit_error=True, logging_level=logging.ERROR, log_to_driver=False)
        except (OSError, RuntimeError, ImportError, ValueError) as error:
            raise RuntimeMissingError(
                f"No ray cluster answers at {address or 'RAY_ADDRESS or on this machine'} ({error}). Start one with "
                "`ray start --head`, and more workers, this machine among them, with `ray start --address HOST:6379`."
            ) from None

    @property
    def count(self) -> int:
        """Processors that the cluster's workers have."""
        resources: dict[str, float] = self._ray.cluster_resources()
        return max(1, int(resources.get("CPU", 1)))

    @property
    def deaths(self) -> tuple[type[Exception], ...]:
        """What is raised where a task's workers died too often."""
        errors = self._ray.exceptions
        return (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)

    def compute(self, function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for every task's arguments, as the results come; an error is the task's own.

        No more tasks are under way than twice the workers.
        """
        remote = self._ray.remote(max_retries=self._retries)(function)
        source, most = iter(tasks), 2 * self.count
        under_way: list[Any] = []
        try:
            while True:
                under_way += [remote.remote(*arguments) for arguments in islice(source, most - len(under_way))]
                if not under_way:
                    return
                done, under_way = self._ray.wait(under_way)
                try:
                    yield from self._ray.get(done)
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
        finally:
            for reference in under_way:
                self._ray.cancel(reference)


def _knock(address: str) -> None:
    """Raise within seconds where nothing listens; ray itself tries for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        where = place.hostname, place.port
    except ValueError:
        where = None, None
    if not all(where):
        raise ConfigError(f"{address} is no address of a ray cluster: say HOST:PORT, such as 10.0.0.1:6379.")
    socket.create_connection((str(where[0]), int(where[1] or 0)), ANSWER_TIMEOUT_S).close()
