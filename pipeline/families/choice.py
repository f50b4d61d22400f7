"""Which families plans may use."""

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
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    unknown = [name for name in names if name not in runtime.families]
    if unknown or not names:
        has = ", ".join(runtime.families) or "none"
        raise ConfigError(
            f"--families {asked}: {runtime.name} gains nothing from {', '.join(unknown) or 'no family'}; it has {has}. "
            "Ask for those, or choose another --runtime."
        )
    return names
