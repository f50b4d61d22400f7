"""What kept a machine from its full speed while something was timed, in words."""

from collections.abc import Mapping, Sequence

import numpy as np

from profilers.precedence import BUSY

STOLEN = 0.01
"""Fraction of the time above which what a hypervisor took is worth a word."""
SLOWED = 0.9
"""A frequency below this part of the highest one seen is a throttled one."""
SLOW = 0.5
"""So is one that stays below this part of the highest that the CPU has: all its cores at once, computing with its
widest registers, run at well over half of that."""


def name_disturbances(
    machines: Sequence[Mapping[str, float]], seconds: float, *, threads: int, cores: int
) -> tuple[str, ...]:
    """Sentences, one a disturbance.

    Args:
        machines: what the machine did during each of several measurements (profilers/machine.py).
        seconds: that they took together.
        threads: that computed.
        cores: physical cores that they could use.
    """

    def total(name: str) -> float:
        return sum(machine.get(name, 0.0) for machine in machines)

    found = []
    if total("throttled_periods"):
        found.append(
            f"a CPU quota (cgroup) stopped the process {total('throttled_periods'):.0f} times, for "
            f"{total('throttled_s'):.2f} s in all: raise the quota, or ask for fewer threads"
        )
    if total("hot_cpus"):
        found.append(f"the CPU slowed down for heat {total('hot_cpus'):.0f} times: cool it, or measure more slowly")
    if seconds and total("stolen_s") > STOLEN * seconds * threads:
        share = total("stolen_s") / (seconds * threads)
        found.append(f"the hypervisor gave {share:.0%} of the CPU time to others: measure on a host of your own")
    ahead = [machine for machine in machines if machine.get("is_ahead")]
    others_cores = float(np.mean([machine.get("others_cores", 0.0) for machine in ahead or machines or [{}]]))
    if others_cores > BUSY:
        remedy = "although it ran ahead of those that it may: end them" if ahead else "end them, or measure ahead of "
        remedy += "" if ahead else "them, as root with --precedence"
        found.append(f"other processes kept {others_cores:.1f} of the measured cores busy while it measured, {remedy}")
    clocks_hz = [machine["frequency_hz"] for machine in machines if "frequency_hz" in machine]
    if clocks_hz and min(clocks_hz) < SLOWED * max(clocks_hz):
        found.append(
            f"the clock went from {max(clocks_hz) / 1e9:.1f} down to {min(clocks_hz) / 1e9:.1f} GHz: set the frequency "
            "governor to performance, or fix the clock"
        )
    highest_hz = max((machine.get("highest_hz", 0.0) for machine in machines), default=0.0)
    if clocks_hz and max(clocks_hz) < SLOW * highest_hz:
        found.append(
            f"the clock stayed at {max(clocks_hz) / 1e9:.1f} of the CPU's {highest_hz / 1e9:.1f} GHz: look for a power "
            "limit, a governor that saves power, or heat"
        )
    if threads > cores:
        found.append(f"{threads} threads share {cores} cores: they wait for each other; ask for at most {cores}")
    return tuple(found)
