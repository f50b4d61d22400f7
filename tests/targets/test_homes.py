"""Where things are kept on the user's behalf."""

from pathlib import Path

import pytest

from targets.homes import cache_home, data_home


@pytest.mark.parametrize(
    ("variables", "data", "cache"),
    [
        ({"SPDY_EDGE_HOME": "/a", "XDG_DATA_HOME": "/b", "XDG_CACHE_HOME": "/b"}, "/a", "/a"),
        ({"XDG_DATA_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/spdy-edge", "/c/spdy-edge"),
        ({"HOME": "/d"}, "/d/.local/share/spdy-edge", "/d/.cache/spdy-edge"),
    ],
)
def test_the_variables_that_say_where_in_their_order(
    variables: dict[str, str], data: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPDY_EDGE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (data_home(), cache_home()) == (Path(data), Path(cache))
