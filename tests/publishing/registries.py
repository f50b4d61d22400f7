"""Registries on loopback: Debian's docker-registry as it is, and small servers that misbehave as no real one would."""

import base64
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

USER, PASSWORD = "alice", "pass:word"
BCRYPT = "$2b$04$6t0.slwcHQaixDaNAubP1.pWadCF4ym5T/xsdaMixwf71exSYGs6m"
PROGRAM = shutil.which("docker-registry")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


@contextmanager
def docker_registry(folder: Path, auth: dict[str, Any] | None = None) -> Iterator[str]:
    """A registry that keeps its blobs in ``folder``/storage; gives host:port."""
    host = f"127.0.0.1:{free_port()}"
    folder.mkdir(exist_ok=True)
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": host},
    }
    if auth:
        config["auth"] = auth
    (folder / "config.yml").write_text(json.dumps(config))  # YAML reads JSON
    with (folder / "log").open("w") as log:
        command = [str(PROGRAM), "serve", str(folder / "config.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(host, process, folder / "log")
            yield host
        finally:
            process.terminate()
            process.wait()


def _wait(host: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
        except urllib.error.HTTPError:
            return  # it asks for credentials
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the registry does not answer: {log.read_text()}")


def htpasswd(folder: Path) -> dict[str, Any]:
    """Settings of a registry that knows one user."""
    path = folder / "htpasswd"
    path.write_text(f"{USER}:{BCRYPT}\n")
    return {"htpasswd": {"realm": "test", "path": str(path)}}


Answer = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """A server whose every answer one function gives; requests are kept."""

    daemon_threads = True

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], Answer]) -> None:
        self.requests: list[tuple[str, str, str | None]] = []
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                outer.requests.append((self.command, self.path, self.headers["Authorization"]))
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
                code, headers, body = answer(self)
                self.send_response(code)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

            def log_message(self, *words: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def serve(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class TokenIssuer:
    """A token server as public registries have one: a password gives a token for what was asked."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")]), datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._bundle = folder / "issuer.pem"
        self._bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def settings(self, host: str) -> dict[str, Any]:
        """Of a registry that trusts this issuer's tokens, which are to be had at ``host``."""
        realm = f"http://{host}/token"
        return {"token": {"realm": realm, "service": "test", "issuer": "issuer", "rootcertbundle": str(self._bundle)}}

    def answer(self, request: BaseHTTPRequestHandler) -> Answer:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers["Authorization"] != expected:
            return 401, {}, b"{}"
        query = parse_qs(urlparse(request.path).query)
        return 200, {}, json.dumps({"token": self._token(query["service"][0], query["scope"])}).encode()

    def _token(self, service: str, scopes: list[str]) -> str:
        now = int(time.time())
        access = [dict(zip(("type", "name", "actions"), scope.split(":"), strict=True)) for scope in scopes]
        claims = {
            "iss": "issuer",
            "sub": USER,
            "aud": service,
            "exp": now + 60,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
            "access": [entry | {"actions": entry["actions"].split(",")} for entry in access],
        }
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
