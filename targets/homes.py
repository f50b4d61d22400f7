"""Where things are kept on the user's behalf."""

import os
from pathlib import Path


def data_home() -> Path:
    """What is installed: $SPDY_EDGE_HOME, or spdy-edge in the user's data directory."""
    return _home("XDG_DATA_HOME", ".local/share")


def cache_home() -> Path:
    """What can be made again: $SPDY_EDGE_HOME, or spdy-edge in the user's cache directory."""
    return _home("XDG_CACHE_HOME", ".cache")


def _home(variable: str, usual: str) -> Path:
    if home := os.environ.get("SPDY_EDGE_HOME"):
        return Path(home)
    return Path(os.environ.get(variable) or Path.home() / usual) / "spdy-edge"
