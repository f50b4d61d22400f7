"""How far apart two cores are: the round trip of a cache line between them. Part of the worker: standard library only.

A hypervisor may move a machine's cores, for seconds to minutes, to places that share no cache, or let another guest's
threads share a core with ours. Networks then lose time, fast ones the larger share of it (docs/decisions/0011, 0036).
Cores that slept take milliseconds to come to speed and seem far apart until then: the first trips do not count.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence

NEAR = 1.25
"""Cores are undisturbed up to this multiple of the shortest round trip seen."""

WARMING_TRIPS = 20_000
"""About ten milliseconds, not timed (docs/decisions/0036)."""
TRIPS = 200
SPINS = 200_000
"""Polls after which the other side is taken to be gone."""
PING, PONG = 0, 128
"""Bytes of the shared page, on cache lines of their own."""


class CoreDistance:
    """Times round trips between the first and the last of some cores; a helper process answers from the last.

    Make it before any thread is started, since it forks.

    Args:
        cpus: the cores; with fewer than two there is no distance.

    Attributes:
        helpers: ids of the processes that work for this one.
    """

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = cpus
        self.helpers: tuple[int, ...] = ()
        if len(cpus) < 2:
            return
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        calls, self._call = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._call)
            try:
                os.sched_setaffinity(0, {cpus[-1]})
                while os.read(calls, 1):  # the end of the pipe is the end of the worker
                    _answer(self._page)
            finally:
                os._exit(0)
        os.close(calls)
        self.helpers = (pid,)

    def measure(self) -> float | None:
        """Median seconds of a round trip; None where there is no second core, or no answer."""
        if len(self._cpus) < 2:
            return None
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._cpus[0]})
        try:
            return _ask(self._page, self._call)
        finally:
            os.sched_setaffinity(0, before)


def _ask(page: mmap.mmap, call: int) -> float | None:
    page[PING] = page[PONG] = 0
    os.write(call, b"x")
    times_ns = []
    for trip in range(WARMING_TRIPS + TRIPS):
        value = trip % 127 + 1
        start = time.perf_counter_ns()
        page[PING] = value
        for _ in range(SPINS):
            if page[PONG] == value:
                break
        else:
            return None
        times_ns.append(time.perf_counter_ns() - start)
    return sorted(times_ns[WARMING_TRIPS:])[TRIPS // 2] * 1e-9


def _answer(page: mmap.mmap) -> None:
    for trip in range(WARMING_TRIPS + TRIPS):
        value = trip % 127 + 1
        for _ in range(SPINS):
            if page[PING] == value:
                break
        else:
            return
        page[PONG] = value
