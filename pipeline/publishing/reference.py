"""Where an artifact lies in a registry, as people write it: ``oci://registry/repository:tag``."""

import re
from dataclasses import dataclass

from targets.errors import ConfigError

SCHEME = "oci://"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATTERN = re.compile(
    r"(?P<host>(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?)/"
    rf"(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))",
    re.ASCII,
)
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """One artifact, by tag or by the digest of its manifest.

    Args:
        host: with the port where there is one.
    """

    host: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read ``oci://registry/repository:tag`` or ``oci://registry/repository@sha256:…``.

        Raises:
            ConfigError: it is of another form; what was typed is not repeated where it may hold a password.
        """
        if re.match(r"oci://[^/]*@", text):
            raise ConfigError(
                "A registry's address must not hold a user or password. Set SPDY_EDGE_REGISTRY_USER and "
                "SPDY_EDGE_REGISTRY_PASSWORD, or log in with docker."
            )
        found = _PATTERN.fullmatch(text.removeprefix(SCHEME)) if text.startswith(SCHEME) else None
        if not found:
            raise ConfigError(
                f"{text!r} names no artifact. Write oci://registry/repository:tag, the repository in lower case, such "
                "as oci://registry.example.com/models/resnet20:v3."
            )
        return cls(found["host"], found["repository"], found["tag"], found["digest"])

    @property
    def version(self) -> str:
        """Tag or digest, whichever was given."""
        return self.tag or self.digest or ""

    @property
    def is_loopback(self) -> bool:
        """The registry is on this machine: the one place where plain HTTP is used."""
        return bool(_LOOPBACK.fullmatch(self.host))

    @property
    def folder_name(self) -> str:
        """What a fetched artifact's folder is called unless the user says otherwise."""
        return f"{self.repository.rpartition('/')[2]}-{self.version.removeprefix('sha256:')[:128]}"

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}/{self.repository}{':' if self.tag else '@'}{self.version}"
