"""Runs that cannot become faster are refused before anything is measured, with what would help."""

from collections.abc import Collection, Sequence

from pipeline.compression.adaprune import NAME as ADAPRUNE
from pipeline.context import Run
from pipeline.planning.promises import promised
from profilers.latency_table import LatencyTable
from profilers.probe import RuntimeCapability
from profilers.profile import fastest_known
from targets.environments import MANAGED
from targets.errors import ConfigError, InconclusiveError, SpeedupError
from targets.registry import RuntimeInfo

NONSENSE = 1.5
"""By this factor the dense network and itself differ on no machine that measures anything."""


def require_gain(run: Run) -> None:
    """Stop where no level can buy time, and say which of the families asked for cannot.

    Raises:
        SpeedupError: the runtime gains nothing from the families that it has, or from those asked for.
    """
    capability, families = run.capability, run.families
    assert capability is not None, "the probe stage comes first"
    idle = [family for family in families if family not in capability.gaining]
    if idle and len(idle) < len(families):
        run.reporter.warn(f"{', '.join(idle)} gains nothing here: {promised(capability)} in the probe")
    if len(idle) == len(families):
        raise SpeedupError(
            f"{run.config.speedup:g}x is unreachable on {capability.name} with "
            f"{', '.join(families) or 'no family of levels'}: next to dense the probe ran "
            f"{promised(capability)}{_failed(capability)}.\n"
            f"{_ways_out(capability, families, run.bench.device.runtimes())}"
        )


def require_levels(run: Run) -> None:
    """Stop where the families have no level for any unit.

    Raises:
        SpeedupError: as channels where no block of the network is known to shrink.
    """
    if all(len(run.levels_of(unit)) < 2 for unit in run.units):
        raise SpeedupError(
            f"{run.config.speedup:g}x is unreachable with {', '.join(run.families)}: no part of "
            f"{run.adapter.name} is known to shrink. Give its adapter widths() (docs/your-model.md), or ask for "
            "other --families, such as int8, or for a runtime that gains from zeros."
        )


def require_sense(table: LatencyTable, speedup: float) -> None:
    """Stop where a request seems out of reach, on a machine that measured nonsense.

    Raises:
        InconclusiveError: as one of the plans, the dense network was not nearly as fast as itself.
    """
    ratios = [plan.relative for plan in table.measurements if not any(plan.choice)]
    off = max((max(ratio, 1 / ratio) for ratio in ratios), default=1.0)
    if off > NONSENSE and fastest_known(table) < speedup:
        raise InconclusiveError(
            f"Whether {speedup:g}x can be reached cannot be said: the dense network, timed against itself, differed by "
            f"a factor of {off:.1f}. Other processes or guests had the cores, most likely. When the machine is "
            "quieter: pipeline profile FOLDER --again. As root, --precedence measures ahead of other processes."
        )


def require_fitting_methods(run: Run) -> None:
    """Stop where what was asked for cannot make or choose the run's levels.

    Raises:
        ConfigError: it knows single weights alone, and there are levels that do not remove any.
    """
    asked = {"--allocator global-magnitude": run.config.allocator == "global-magnitude"}
    asked |= {"--solver adaprune": run.config.solver == ADAPRUNE}
    for flag, is_asked in asked.items():
        if is_asked and not run.only_unstructured:
            raise ConfigError(
                f"{flag} is for single weights alone, and the levels here are {', '.join(run.families)}: ask for "
                f"--families unstructured, or for another {flag.split()[0]}."
            )


def _ways_out(capability: RuntimeCapability, asked: Collection[str], installed: Sequence[RuntimeInfo]) -> str:
    """What to try where the families asked for gain nothing on a runtime."""
    left = [family for family in capability.gaining if family not in asked]
    ways = [f"--families {','.join(left)}, from which it gains"] if left else []
    others = [info for info in installed if info.name != capability.name and info.families]
    ways += [f"--runtime {info.name} ({', '.join(info.families)})" for info in others]
    missing = MANAGED.keys() - {info.name for info in installed}
    ways += [f"`pipeline runtimes install {name}`, then --runtime {name}" for name in sorted(missing)]
    advice = f"Try {', or '.join(ways)}. " if ways else ""
    return f"{advice}`pipeline probe` shows what each runtime gains."


def _failed(capability: RuntimeCapability) -> str:
    if failures := capability.failures:
        return f", and {len(failures)} of its {len(capability.rows)} measurements failed ({failures[0]})"
    return ""
