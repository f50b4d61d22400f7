"""A registry as the OCI distribution specification has it: blobs and manifests over HTTP, errors in words."""

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpx2

from pipeline.publishing.credentials import PASSWORD_VARIABLE, USER_VARIABLE, Credentials, find_credentials
from pipeline.publishing.reference import Reference
from targets.errors import ArtifactError, ConfigError, UnreachableError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
REFUSED = (401, 403)
OnFile = Callable[[int, int, str], None]
"""Told how many of how many files are done, and which comes next."""


class Login(httpx2.Auth):
    """Answers a registry's challenge, with a password or with a token that its token server gives for it.

    Nothing is sent before it is asked for, nor to any other host than the registry and its token server.
    """

    def __init__(self, origin: httpx2.URL, credentials: Credentials | None, allow_http: bool) -> None:
        self._origin, self._credentials, self._allow_http = origin, credentials, allow_http
        self._header: str | None = None

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send, and once more with an answer where one is asked for."""
        ours = self._is_ours(request.url)
        if ours and self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != 401 or not ours or not self._is_ours(response.url):
            return
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "basic" and self._credentials:
            self._header = self._credentials.basic
        elif scheme.lower() == "bearer":
            answer = yield self._token_request(dict(re.findall(r'(\w+)="([^"]*)"', rest)))
            self._header = _token(answer)
        else:
            return
        request.headers["Authorization"] = self._header
        yield request

    def _is_ours(self, url: httpx2.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._origin.scheme, self._origin.host, self._origin.port)

    def _token_request(self, challenge: dict[str, str]) -> httpx2.Request:
        realm = httpx2.URL(challenge.pop("realm", ""))
        if realm.scheme != "https" and not self._allow_http:
            raise UnreachableError("The registry's token server is not reached over https: nothing was sent to it.")
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        wanted = {name: value for name, value in challenge.items() if name in ("service", "scope")}
        return httpx2.Request("GET", realm.copy_merge_params(wanted), headers=headers)


def _token(answer: httpx2.Response) -> str:
    answer.read()
    if answer.status_code in REFUSED:
        raise _refused(f"The registry's token server answers {answer.status_code}")
    try:
        data = answer.json()
        return "Bearer " + str(data.get("token") or data["access_token"])
    except (ValueError, KeyError, AttributeError):
        raise UnreachableError(
            f"The registry's token server gives no token (it answers {answer.status_code})."
        ) from None


def _refused(what: str) -> ConfigError:
    return ConfigError(
        f"{what}: it refuses these credentials, or wants some. Set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or log in "
        "with docker, as a user who may do this."
    )


class Registry:
    """One repository of a registry. Plain HTTP on this machine only, HTTPS everywhere else.

    Args:
        timeout_s: how long the server may be silent.
    """

    def __init__(self, reference: Reference, timeout_s: float = TIMEOUT_S) -> None:
        self._name, self._repository, self._timeout_s = reference.host, reference.repository, timeout_s
        scheme = "http" if reference.is_loopback else "https"
        self._origin = httpx2.URL(f"{scheme}://{reference.host}")
        self._client = httpx2.Client(
            auth=Login(self._origin, find_credentials(reference.host), reference.is_loopback),
            timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            trust_env=not reference.is_loopback,  # no proxy on the way to ourselves
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def has_manifest(self, tag: str) -> bool:
        """Is there something under this tag?"""
        response = self._send("HEAD", f"manifests/{tag}", headers={"Accept": f"{MANIFEST_TYPE}, */*"}, absent=True)
        return response.status_code == 200

    def manifest(self, version: str) -> bytes:
        """The manifest of a tag or a digest.

        Raises:
            ConfigError: there is none.
        """
        response = self._send("GET", f"manifests/{version}", headers={"Accept": MANIFEST_TYPE}, absent=True)
        if response.status_code == 404:
            raise ConfigError(f"The registry {self._name} has no {self._repository} under {version}.")
        return response.content

    def put_manifest(self, tag: str, content: bytes) -> None:
        """Make an artifact visible under a tag; its blobs must be there."""
        self._send("PUT", f"manifests/{tag}", content=content, headers={"Content-Type": MANIFEST_TYPE})

    def upload(self, digest: str, size: int, content: Iterable[bytes]) -> None:
        """Bring one blob there, unless it is there already.

        Args:
            digest: ``sha256:…`` of the content, which the registry checks.
            content: can be iterated more than once.
        """
        if self._send("HEAD", f"blobs/{digest}", absent=True).status_code == 200:
            return
        started = self._send("POST", "blobs/uploads/")
        place = started.url.join(started.headers.get("Location", ""))
        if place.scheme != self._origin.scheme:
            raise UnreachableError(f"The registry {self._name} wants uploads over {place.scheme}: nothing was sent.")
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self._send("PUT", place.copy_merge_params({"digest": digest}), content=content, headers=headers)

    def download(self, digest: str) -> Iterator[bytes]:
        """Content of one blob, unchecked.

        Raises:
            ArtifactError: the registry does not have it.
        """
        request = self._client.build_request("GET", self._url(f"blobs/{digest}"))
        with self._in_words():
            response = self._client.send(request, stream=True, follow_redirects=True)
            try:
                if response.status_code == 404:
                    raise ArtifactError(f"The registry {self._name} has lost the blob {digest} of {self._repository}.")
                if response.is_error:
                    response.read()
                self._check(response)
                yield from response.iter_bytes()
            finally:
                response.close()

    def _url(self, path: str) -> httpx2.URL:
        return self._origin.join(f"/v2/{self._repository}/{path}")

    def _send(
        self,
        method: str,
        path: str | httpx2.URL,
        *,
        content: Iterable[bytes] | bytes | None = None,
        headers: dict[str, str] | None = None,
        absent: bool = False,
    ) -> httpx2.Response:
        """Send one request.

        Args:
            path: below the repository, or a whole address that the registry gave.
            absent: 404 is an answer, not an error.
        """
        url = self._url(path) if isinstance(path, str) else path
        with self._in_words():
            follow = method in ("GET", "HEAD")
            response = self._client.request(method, url, content=content, headers=headers, follow_redirects=follow)
            if not (absent and response.status_code == 404):
                self._check(response)
            return response

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What can go wrong on the way; addresses of uploads may hold secrets and are never shown."""
        try:
            yield
        except httpx2.TimeoutException:
            raise UnreachableError(
                f"The registry {self._name} was silent for {self._timeout_s:g} s. Try again, or give it more --timeout."
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnreachableError(
                f"The registry {self._name} cannot be reached or broke off: {error or type(error).__name__}. Is its "
                "name right, and does it run?"
            ) from None

    def _check(self, response: httpx2.Response) -> None:
        code = response.status_code
        if code < 300:
            return
        if code in REFUSED:
            raise _refused(f"The registry {self._name} answers {code}")
        if code == 404:
            raise ConfigError(f"The registry {self._name} has no repository {self._repository}, or takes none.")
        what = "is full" if code == 507 else f"answers {code}"
        raise UnreachableError(
            f"The registry {self._name} {what}{_detail(response)}. Nothing is visible under the tag that was not there "
            "before; try again when it is well."
        )


def _detail(response: httpx2.Response) -> str:
    """What the registry says of its error, if it says it as the specification wants."""
    try:
        error = response.json()["errors"][0]
        return f" ({error['code']}: {error['message']})"[:200]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
