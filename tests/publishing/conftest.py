from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import make_bundle
from tests.publishing.registries import PROGRAM, docker_registry

VARIABLES = ("USER", "PASSWORD")


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but those that a test sets."""
    for name in VARIABLES:
        monkeypatch.delenv(f"SPDY_EDGE_REGISTRY_{name}", raising=False)
    monkeypatch.delenv("SPDY_EDGE_PUBLIC_KEY", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture(scope="session")
def program() -> str:
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed (Debian's package of that name)")
    return PROGRAM


@pytest.fixture(scope="module")
def registry(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of an open registry."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "made")
