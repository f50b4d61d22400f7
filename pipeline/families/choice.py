"""Which families plans may use, and which runtimes have them."""

from collections.abc import Sequence

from targets.errors import ConfigError
from targets.registry import RuntimeInfo


def chosen_families(asked: str | None, runtime: RuntimeInfo) -> tuple[str, ...]:
    """The families that were asked for, or all of the runtime's.

    Args:
        asked: names with commas between them.

    Raises:
        ConfigError: the runtime gains nothing from one of them.
    """
    if asked is None:
        return runtime.families
    names = named_families(asked)
    unknown = [name for name in names if name not in runtime.families]
    if unknown or not names:
        raise ConfigError(
            f"--families {asked}: {runtime.name} gains nothing from {', '.join(unknown) or 'no family'}; it has "
            f"{_listed(runtime)}. Ask for those, or choose another --runtime."
        )
    return names


def named_families(asked: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))


def with_families(asked: str | None, runtimes: Sequence[RuntimeInfo]) -> list[RuntimeInfo]:
    """The runtimes that have all families that were asked for.

    Raises:
        ConfigError: none has.
    """
    if asked is None:
        return list(runtimes)
    if len(runtimes) == 1:
        chosen_families(asked, runtimes[0])
    names = set(named_families(asked))
    found = [info for info in runtimes if names and names <= set(info.families)]
    if not found:
        has = "; ".join(f"{info.name} has {_listed(info)}" for info in runtimes)
        raise ConfigError(f"--families {asked}: no installed runtime gains from all of these: {has}.")
    return found


def _listed(runtime: RuntimeInfo) -> str:
    return ", ".join(runtime.families) or "none"
