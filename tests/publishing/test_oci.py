"""Bundles in a real registry: there whole or not at all, back byte by byte, refused in words when something is off."""

import base64
import json
import re
import socket
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from oras.client import OrasClient

from pipeline.provenance.signing import load_private_key, make_key, sign_bundle
from pipeline.publishing.from_oci import fetch_from_oci
from pipeline.publishing.reference import Reference
from pipeline.publishing.to_oci import publish_to_oci
from targets.errors import ArtifactError, ConfigError, UnreachableError, UserError
from tests.bundles import contents
from tests.publishing.registries import (
    PASSWORD,
    USER,
    Answer,
    TokenIssuer,
    docker_registry,
    free_port,
    htpasswd,
    serve,
)

NOTES = {"spdy-edge.status": "certified"}


def at(host: str, tag: str, repository: str = "models/resnet20") -> Reference:
    return Reference.parse(f"oci://{host}/{repository}:{tag}")


def manifest_of(host: str, tag: str) -> Any:
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    request = urllib.request.Request(f"http://{host}/v2/models/resnet20/manifests/{tag}", headers=accept)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def test_a_bundle_comes_back_as_it_went(registry: str, bundle: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    made = sign_bundle(bundle, load_private_key(tmp_path / "key"))
    digest = publish_to_oci(bundle, at(registry, "v1"), NOTES)
    for reference in (at(registry, "v1"), Reference.parse(f"oci://{registry}/models/resnet20@{digest}")):
        out = tmp_path / "below" / reference.folder_name
        manifest, signature = fetch_from_oci(reference, out, tmp_path / "key.pub")
        assert contents(out) == contents(bundle)
        assert manifest["status"] == "certified"
        assert signature == made
        assert out.stat().st_mode & 0o777 == (tmp_path / "made").stat().st_mode & 0o777
        assert [path.name for path in out.parent.glob(".*")] == []


def test_the_artifact_is_what_other_tools_read(registry: str, bundle: Path) -> None:
    publish_to_oci(bundle, at(registry, "tools"), NOTES)
    manifest = manifest_of(registry, "tools")
    assert manifest["artifactType"] == "application/vnd.spdy-edge.bundle.v1"
    assert manifest["annotations"] == NOTES
    titles = {layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]}
    assert titles == {"model.onnx", "openvino/model.xml", "certificate.json", "manifest.json"}


def test_a_tag_that_exists_is_refused_unless_it_may_be_replaced(registry: str, bundle: Path, tmp_path: Path) -> None:
    publish_to_oci(bundle, at(registry, "taken"), NOTES)
    other = {"spdy-edge.status": "other"}
    with pytest.raises(ConfigError, match="exists"):
        publish_to_oci(bundle, at(registry, "taken"), other)
    assert manifest_of(registry, "taken")["annotations"] == NOTES
    publish_to_oci(bundle, at(registry, "taken"), other, overwrite=True)
    assert manifest_of(registry, "taken")["annotations"] == other


def test_half_a_bundle_never_shows_and_does_not_stand_in_the_way(registry: str, bundle: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish_to_oci(bundle, at(registry, "half"), NOTES, on_file=stop)
    with pytest.raises(ConfigError, match="has no models/resnet20 under half"):
        fetch_from_oci(at(registry, "half"), tmp_path / "out", None)
    publish_to_oci(bundle, at(registry, "half"), NOTES)
    fetch_from_oci(at(registry, "half"), tmp_path / "out", None)


def test_an_interrupted_fetch_leaves_nothing(registry: str, bundle: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    publish_to_oci(bundle, at(registry, "stop"), NOTES)
    with pytest.raises(KeyboardInterrupt):
        fetch_from_oci(at(registry, "stop"), tmp_path / "below" / "out", None, on_file=stop)
    assert list((tmp_path / "below").iterdir()) == []


def test_a_folder_that_exists_is_not_touched(registry: str, bundle: Path, tmp_path: Path) -> None:
    publish_to_oci(bundle, at(registry, "there"), NOTES)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        fetch_from_oci(at(registry, "there"), tmp_path / "out", None)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Cannot write"):
        fetch_from_oci(at(registry, "there"), tmp_path / "file" / "out", None)


def test_nothing_there(registry: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no models/none under v1"):
        fetch_from_oci(at(registry, "v1", "models/none"), tmp_path / "out", None)


def test_a_bundle_that_was_altered_before_it_was_published_is_refused(
    registry: str, bundle: Path, tmp_path: Path
) -> None:
    (bundle / "model.onnx").write_bytes(b"other")
    publish_to_oci(bundle, at(registry, "altered"), NOTES)
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        fetch_from_oci(at(registry, "altered"), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_an_unsigned_bundle_is_refused_where_a_key_is_named(registry: str, bundle: Path, tmp_path: Path) -> None:
    publish_to_oci(bundle, at(registry, "unsigned"), NOTES)
    with pytest.raises(ArtifactError, match="not signed"):
        fetch_from_oci(at(registry, "unsigned"), tmp_path / "out", make_key(tmp_path / "key"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [b"x" * 256 * 5000, b"short", b"x" * 256 * 6000])
def test_a_blob_that_was_altered_in_the_registry_is_refused(
    program: str, bundle: Path, tmp_path: Path, damage: bytes
) -> None:
    with docker_registry(tmp_path / "own") as host:
        publish_to_oci(bundle, at(host, "v1"), NOTES)
        (blob,) = (p for p in (tmp_path / "own").rglob("data") if p.stat().st_size == 256 * 5000)
        blob.write_bytes(damage)
        with pytest.raises(ArtifactError, match=r"model\.onnx came otherwise"):
            fetch_from_oci(at(host, "v1"), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def login(monkeypatch: pytest.MonkeyPatch, password: str = PASSWORD) -> None:
    monkeypatch.setenv("SPDY_EDGE_REGISTRY_USER", USER)
    monkeypatch.setenv("SPDY_EDGE_REGISTRY_PASSWORD", password)


def docker_login(host: str, folder: Path) -> None:
    """What `docker login` writes."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "docker").mkdir()
    (folder / "docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def refused(bundle: Path, reference: Reference, out: Path) -> None:
    """Neither publishing nor fetching works, and the message says what to set but no password."""
    for attempt in (lambda: publish_to_oci(bundle, reference, NOTES), lambda: fetch_from_oci(reference, out, None)):
        with pytest.raises(ConfigError, match="SPDY_EDGE_REGISTRY_USER") as caught:
            attempt()
        assert "wrong-one" not in str(caught.value)


def test_passwords(program: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with docker_registry(tmp_path / "own", htpasswd(tmp_path)) as host:
        refused(bundle, at(host, "v1"), tmp_path / "out")
        login(monkeypatch, "wrong-one")
        refused(bundle, at(host, "v1"), tmp_path / "out")
        login(monkeypatch)
        publish_to_oci(bundle, at(host, "v1"), NOTES)
        monkeypatch.delenv("SPDY_EDGE_REGISTRY_USER")
        docker_login(host, tmp_path)
        fetch_from_oci(at(host, "v1"), tmp_path / "out", None)


def test_tokens(program: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = TokenIssuer(tmp_path)
    with serve(issuer.answer) as server, docker_registry(tmp_path / "own", issuer.settings(server.host)) as host:
        refused(bundle, at(host, "v1"), tmp_path / "out")
        login(monkeypatch, "wrong-one")
        refused(bundle, at(host, "v1"), tmp_path / "out")
        login(monkeypatch)
        publish_to_oci(bundle, at(host, "v1"), NOTES)
        fetch_from_oci(at(host, "v1"), tmp_path / "out", None)
        assert contents(tmp_path / "out") == contents(bundle)


def test_a_registry_that_is_down(bundle: Path, tmp_path: Path) -> None:
    reference = at(f"127.0.0.1:{free_port()}", "v1")
    with pytest.raises(UnreachableError, match="cannot be reached"):
        publish_to_oci(bundle, reference, NOTES)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        fetch_from_oci(reference, tmp_path / "out", None)


def test_a_registry_that_is_silent(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reference = at(f"127.0.0.1:{server.getsockname()[1]}", "v1")
        with pytest.raises(UnreachableError, match=r"silent for 0\.3 s"):
            publish_to_oci(bundle, reference, NOTES, timeout_s=0.3)
        with pytest.raises(UnreachableError, match=r"silent for 0\.3 s"):
            fetch_from_oci(reference, tmp_path / "out", None, timeout_s=0.3)


@pytest.mark.parametrize(
    ("code", "body", "error", "words"),
    [
        (507, b"", UnreachableError, "is full"),
        (500, b'{"errors": [{"code": "UNKNOWN", "message": "no space left"}]}', UnreachableError, "no space left"),
        (429, b"", UnreachableError, "answers 429"),
        (403, b"", ConfigError, "refuses these credentials"),
    ],
)
def test_a_registry_that_cannot_take_a_blob(
    bundle: Path, code: int, body: bytes, error: type[UserError], words: str
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> Answer:
        if request.command == "HEAD":
            return 404, {}, b""
        if request.command == "POST":
            return 202, {"Location": "/v2/models/resnet20/blobs/uploads/1?_state=secret"}, b""
        return code, {}, body

    with serve(answer) as server:
        with pytest.raises(error, match=words) as caught:
            publish_to_oci(bundle, at(server.host, "v1"), NOTES)
        assert "secret" not in str(caught.value)
        puts = [path for command, path, _ in server.requests if command == "PUT"]
        assert [path for path in puts if "/manifests/" in path] == []
        assert re.search(r"_state=secret&digest=sha256%3A\w{64}|_state=secret&digest=sha256:\w{64}", puts[0])


def test_a_password_goes_to_no_other_host(
    program: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registries keep blobs elsewhere and redirect there; that place may ask, and gets nothing."""
    login(monkeypatch)
    manifest = json.dumps(
        {
            "artifactType": "application/vnd.spdy-edge.bundle.v1",
            "layers": [
                {"digest": "sha256:1", "size": 1, "annotations": {"org.opencontainers.image.title": "manifest.json"}}
            ],
        }
    ).encode()

    with serve(lambda request: (401, {"WWW-Authenticate": 'Basic realm="elsewhere"'}, b"")) as elsewhere:

        def answer(request: BaseHTTPRequestHandler) -> Answer:
            if not request.headers["Authorization"]:
                return 401, {"WWW-Authenticate": 'Basic realm="here"'}, b""
            if "/manifests/" in request.path:
                return 200, {}, manifest
            return 307, {"Location": f"http://{elsewhere.host}/blob"}, b""

        with serve(answer) as server, pytest.raises(ConfigError, match="refuses these credentials"):
            fetch_from_oci(at(server.host, "v1"), tmp_path / "out", None)
        assert [header for _, _, header in elsewhere.requests] == [None]


def test_a_login_that_expires_during_an_upload_is_renewed_with_the_whole_file(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch)
    refusals = ["once"]

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        if request.command == "HEAD":
            return 404, {}, b""
        if request.command == "POST":
            return 202, {"Location": "/v2/upload"}, b""
        if len(server.bodies[-1]) > 1_000_000 and refusals:
            refusals.clear()
            return 401, {"WWW-Authenticate": 'Basic realm="here"'}, b""
        return 201, {}, b""

    with serve(answer) as server:
        publish_to_oci(bundle, at(server.host, "v1"), NOTES)
        assert server.bodies.count((bundle / "model.onnx").read_bytes()) == 2


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "", "a\\b", 7])
def test_files_that_would_lie_outside_are_refused(tmp_path: Path, name: object) -> None:
    layer = {"digest": "sha256:1", "size": 1, "annotations": {"org.opencontainers.image.title": name}}
    manifest = {"artifactType": "application/vnd.spdy-edge.bundle.v1", "layers": [layer]}
    with (
        serve(lambda request: (200, {}, json.dumps(manifest).encode())) as server,
        pytest.raises(ArtifactError, match="outside"),
    ):
        fetch_from_oci(at(server.host, "v1"), tmp_path / "below" / "out", None)


@pytest.mark.parametrize("manifest", [b"{", b"[]", b'{"layers": []}', b'{"artifactType": "image"}'])
def test_what_is_no_bundle_is_refused(tmp_path: Path, manifest: bytes) -> None:
    with (
        serve(lambda request: (200, {}, manifest)) as server,
        pytest.raises(ArtifactError, match=r"is no bundle|is broken"),
    ):
        fetch_from_oci(at(server.host, "v1"), tmp_path / "out", None)


def test_oras_pulls_it(registry: str, bundle: Path, tmp_path: Path) -> None:
    publish_to_oci(bundle, at(registry, "oras"), NOTES)
    client = OrasClient(insecure=True)
    pulled = client.pull(f"{registry}/models/resnet20:oras", outdir=str(tmp_path / "out"))
    assert len(pulled) == len(contents(bundle))
    assert contents(tmp_path / "out") == contents(bundle)


@pytest.mark.parametrize(
    "text",
    [
        "oci://host/name",
        "oci://host/Name:v1",
        "oci://host:v1",
        "oci:host/name:v1",
        "oci://host/name:",
        "oci://host/name:.v1",
        "oci://host/../name:v1",
        "oci://host/name@sha256:12",
        "https://host/name:v1",
        "oci://host/name:v1\n",
    ],
)
def test_references_of_another_form(text: str) -> None:
    with pytest.raises(ConfigError, match="registry/repository:tag"):
        Reference.parse(text)


def test_a_reference_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match="SPDY_EDGE_REGISTRY_PASSWORD") as caught:
        Reference.parse("oci://alice:hush@host/name:v1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("[::1]:80", True),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_plain_http_is_for_this_machine_alone(host: str, loopback: bool) -> None:
    assert at(host, "v1").is_loopback == loopback
