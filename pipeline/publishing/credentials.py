"""Who we are to a registry: from the environment, else from what `docker login` wrote. Never shown, never stored."""

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

USER_VARIABLE = "SPDY_EDGE_REGISTRY_USER"
PASSWORD_VARIABLE = "SPDY_EDGE_REGISTRY_PASSWORD"


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password, neither of which an accidental print shows."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """Value of the header ``Authorization``."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(host: str) -> Credentials | None:
    """Credentials for a registry, None where there are none."""
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if user and password:
        return Credentials(user, password)
    folder = os.environ.get("DOCKER_CONFIG")
    return _of_docker((Path(folder) if folder else Path.home() / ".docker") / "config.json", host)


def _of_docker(path: Path, host: str) -> Credentials | None:
    """An entry of docker's file; one that cannot be read counts as none, since it is not ours to judge."""
    try:
        logins = json.loads(path.read_text())["auths"]
        entry = next(logins[key] for key in (host, f"https://{host}", f"https://{host}/v2/") if key in logins)
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    return Credentials(user, password) if user and password else None
