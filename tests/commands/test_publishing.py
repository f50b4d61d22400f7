"""Sign, verify, publish and fetch as a release job runs them."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import contents, make_bundle
from tests.command import pipeline
from tests.publishing.registries import PASSWORD, PROGRAM, USER, docker_registry, htpasswd


def answer(*arguments: object, cwd: Path, code: int = 0, environment: Mapping[str, str] | None = None) -> Any:
    """The JSON that a command prints; it exits with ``code`` and never shows a password or a traceback."""
    result = pipeline(*arguments, "--json", cwd=cwd, environment=environment)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["exit_code"] == code
    return found


def test_sign_and_verify(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    assert pipeline("keygen", "release.key", cwd=tmp_path).returncode == 0
    assert answer("verify", "bundle", "--files-only", cwd=tmp_path)["signed_by"] is None
    assert answer("verify", "bundle", "--files-only", "--record", "files.json", cwd=tmp_path)["record"] == "files.json"
    assert json.loads((tmp_path / "files.json").read_text())["checks"][0]["status"] == "passed"
    by_key = {"SPDY_EDGE_PUBLIC_KEY": "release.key.pub"}
    assert "not signed" in answer("verify", "bundle", "--files-only", cwd=tmp_path, code=5, environment=by_key)["error"]
    assert "--key" in answer("sign", "bundle", cwd=tmp_path, code=2, environment={"SPDY_EDGE_SIGNING_KEY": ""})["error"]
    made = answer("sign", "bundle", cwd=tmp_path, environment={"SPDY_EDGE_SIGNING_KEY": "release.key"})
    found = answer("verify", "bundle", "--files-only", "--public-key", "release.key.pub", cwd=tmp_path)
    assert found["signed_by"] == made["signed_by"]
    (tmp_path / "release.key").chmod(0o644)
    assert "chmod 600" in answer("sign", "bundle", "--key", "release.key", cwd=tmp_path, code=2)["error"]


@pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed")
def test_publish_and_fetch(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    missed = make_bundle(tmp_path / "other", "missed")
    login = {"SPDY_EDGE_REGISTRY_USER": USER, "SPDY_EDGE_REGISTRY_PASSWORD": PASSWORD}
    with docker_registry(tmp_path / "registry", htpasswd(tmp_path)) as host:
        place = f"oci://{host}/models/cars:v1"
        answer("publish", bundle, "--to", place, cwd=tmp_path, code=2, environment={"DOCKER_CONFIG": str(tmp_path)})
        published = answer("publish", bundle, "--to", place, cwd=tmp_path, environment=login)
        assert published["to"] == place
        assert "exists" in answer("publish", bundle, "--to", place, cwd=tmp_path, code=2, environment=login)["error"]
        second = f"oci://{host}/models/cars:v2"
        answer("publish", missed, "--to", second, cwd=tmp_path, code=3, environment=login)
        forced = answer("publish", missed, "--to", second, "--force", "canary", cwd=tmp_path, environment=login)
        assert forced["forced"].startswith("canary")
        pinned = f"oci://{host}/models/cars@{published['digest']}"
        assert answer("fetch", pinned, "--out", "back", cwd=tmp_path, environment=login)["bundle"] == "back"
        assert contents(tmp_path / "back") == contents(bundle)
        assert answer("fetch", second, cwd=tmp_path, environment=login)["certificate_status"] == "missed"
        assert contents(tmp_path / "cars-v2") == contents(missed)
    # Neither side keeps the password: what was published, fetched and logged holds nothing of it.
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode())
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(PASSWORD.encode() in content or encoded in content for content in written)
    answer("fetch", place, "--out", "again", cwd=tmp_path, code=7, environment=login)
    assert not (tmp_path / "again").exists()
