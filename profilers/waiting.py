"""How long this process's threads waited for a core that something else had.

Part of the worker: standard library only.
"""

from __future__ import annotations

from pathlib import Path

THREADS = Path("/proc/self/task")
SHARE = 0.01
"""Of a round; alone on the machine, threads wait 0.3% of it."""


def most_waiting(least_share: float) -> float:
    """The share of a round that threads may wait before something else must have had a core.

    Some runtimes' idle threads wait actively, and the others for them, so that the best round is the measure.

    Args:
        least_share: in the round of this process in which they waited least.
    """
    return max(SHARE, 2 * least_share)


def waited_s() -> float | None:
    """Seconds that the threads were ready to run and did not, all of them together, since they began.

    None where the kernel does not count it (CONFIG_SCHED_INFO).
    """
    try:  # a line of schedstat: time on a core, time waiting for one, turns
        return sum(int((thread / "schedstat").read_text().split()[1]) for thread in THREADS.iterdir()) * 1e-9
    except (OSError, IndexError, ValueError):
        return None
