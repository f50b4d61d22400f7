"""Errors for names that do not exist, with the one that was probably meant."""

import difflib
from collections.abc import Iterable

from targets.errors import ConfigError


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> ConfigError:
    """An error that names what was asked for, the nearest valid name and all valid names.

    Args:
        kind: what the name stands for, such as ``runtime``.
        name: what was asked for.
        valid: every name that exists.
    """
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return ConfigError(f"Unknown {kind} {name!r}. {hint}There are: {', '.join(names)}.")
