"""The CI templates' shell steps, run as they stand, as GitHub's and GitLab's runners run them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from pipeline.publishing.from_oci import fetch_from_oci
from pipeline.publishing.reference import Reference
from targets import environments
from tests.bundles import contents
from tests.command import LITTLE
from tests.publishing.registries import PASSWORD, PROGRAM, USER, docker_registry, htpasswd
from tests.small_bundles import small_bundle, speedup
from tests.verifying.bundles import runnable_bundle

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "ci-templates"
ACTION = yaml.safe_load((TEMPLATES / "action.yml").read_text())
GITLAB = yaml.safe_load((TEMPLATES / "release.gitlab-ci.yml").read_text())
GUIDE = (ROOT / "docs" / "release-jobs.md").read_text()


def block(language: str, words: str) -> str:
    """The guide's code block in a language that holds certain words."""
    (found,) = (text for text in re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S) if words in text)
    return str(found)


class GitHub:
    """Runs steps of the composite action as a runner does: inputs, ``if``, and the files behind its variables."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder = folder
        self.inputs = {name: str(entry["default"]) for name, entry in ACTION["inputs"].items()}
        self.inputs |= {name.replace("_", "-"): value for name, value in inputs.items()}
        self.page, self.output, self.path = (folder / name for name in ("page.md", "output", "path"))
        for file in (self.page, self.output, self.path):
            file.touch()

    def run(self, *names: str) -> subprocess.CompletedProcess[str]:
        """The named steps, or all of them, up to the first that fails."""
        for step in ACTION["runs"]["steps"]:
            if (names and step["id"] not in names) or not self._wanted(step):
                continue
            result = self._run(step)
            if result.returncode:
                break
        return result

    def _wanted(self, step: dict[str, Any]) -> bool:
        if "if" not in step:
            return True
        name = re.fullmatch(r"inputs\.([\w-]+) != ''", step["if"])
        assert name, step["if"]
        return self.inputs[name[1]] != ""

    def _run(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        assert step["shell"] == "bash"
        given = {name: self._filled(value) for name, value in step.get("env", {}).items()}
        program = Path(sys.executable).parent
        places = [*reversed(self.path.read_text().splitlines()), str(program), os.environ["PATH"]]
        files = {
            "GITHUB_ACTION_PATH": str(TEMPLATES),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_PATH": str(self.path),
            "GITHUB_STEP_SUMMARY": str(self.page),
            "PATH": os.pathsep.join(places),
        }
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        return execute(command, self.folder, {**files, **given})

    def _filled(self, value: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: self.inputs[found[1]], value)


def gitlab(folder: Path, job: str, lines: slice, **variables: str) -> subprocess.CompletedProcess[str]:
    """Lines of a job's script as GitLab's runner runs them: one bash script that ends at the first failure."""
    given = {**GITLAB[job]["variables"], **variables}
    script = "\n".join(["set -eo pipefail", *GITLAB[job]["script"][lines]])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return execute(["bash", "-c", script], folder, {"PATH": path, **given})


def execute(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )


GATE_LINE = slice(1, None)


def failures(path: Path) -> list[str]:
    return [
        case.attrib["name"] for case in ElementTree.parse(path).getroot().iter("testcase") if case[0].tag == "failure"
    ]


def test_githubs_gate_passes_a_bundle_on(tmp_path: Path) -> None:
    small_bundle(tmp_path / "my runs" / "bundle")
    small_bundle(tmp_path / "last $(release)")
    job = GitHub(
        tmp_path,
        out="my runs",
        against="last $(release)",
        min_speedup="3",
        max_drop="1",
        max_size_mb="3",
        junit="g.xml",
    )
    result = job.run("gate")
    assert result.returncode == 0, result.stderr
    assert job.output.read_text() == "bundle=my runs/bundle\n"
    assert "Gate passed" in job.page.read_text()
    cases = [case.attrib["name"] for case in ElementTree.parse(tmp_path / "g.xml").getroot().iter("testcase")]
    assert cases == ["unaltered", "accuracy", "accuracy against", "certificate", "speedup", "speedup against", "size"]


@pytest.mark.parametrize(
    ("inputs", "code", "name"),
    [
        ({"max_latency_ms": "0.5"}, 3, "latency"),
        ({"max_drop": "0.5"}, 4, "accuracy"),
        ({"against": "last"}, 3, "speedup against"),
    ],
)
def test_githubs_gate_stops_the_job_with_its_exit_code(
    tmp_path: Path, inputs: dict[str, str], code: int, name: str
) -> None:
    small_bundle(tmp_path / "runs" / "release" / "bundle")
    small_bundle(tmp_path / "last", **speedup(3.1, 3.2, 3.3))
    job = GitHub(tmp_path, **inputs)
    assert job.run("gate").returncode == code
    assert failures(tmp_path / "gate.xml") == [name]
    assert job.output.read_text() == ""
    assert "Gate failed" in job.page.read_text()


def test_gitlabs_gate(tmp_path: Path) -> None:
    small_bundle(tmp_path / "my runs" / "bundle")
    given = {"SPDY_EDGE_OUT": "my runs", "SPDY_EDGE_MIN_SPEEDUP": "3"}
    result = gitlab(tmp_path, "certify-release", GATE_LINE, **given)
    assert result.returncode == 0, result.stderr
    given |= {"SPDY_EDGE_MAX_DROP": "0.5"}
    assert gitlab(tmp_path, "certify-release", GATE_LINE, **given).returncode == 4
    assert failures(tmp_path / GITLAB["certify-release"]["artifacts"]["reports"]["junit"]) == ["accuracy"]


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """host:port of a registry that asks for a password, which is in the environment as a job's secret is."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed (Debian's package of that name)")
    monkeypatch.setenv("SPDY_EDGE_REGISTRY_USER", USER)
    monkeypatch.setenv("SPDY_EDGE_REGISTRY_PASSWORD", PASSWORD)
    folder = tmp_path_factory.mktemp("registry")
    with docker_registry(folder, htpasswd(folder)) as host:
        yield host


def publish(by: str, folder: Path, place: str) -> subprocess.CompletedProcess[str]:
    """The publish step of either template."""
    if by == "github":
        return GitHub(folder, publish_to=place).run("publish")
    return gitlab(folder, "publish-release", slice(None), SPDY_EDGE_PUBLISH_TO=place)


@pytest.mark.parametrize("by", ["github", "gitlab"])
def test_publishing_to_a_folder_and_a_registry(tmp_path: Path, registry: str, by: str) -> None:
    bundle = runnable_bundle(tmp_path / "runs" / "release")
    place = f"oci://{registry}/models/digits:1.0"
    for to in ("dir:served models/digits", place):
        result = publish(by, tmp_path, to)
        assert result.returncode == 0, result.stderr
        assert PASSWORD not in result.stdout + result.stderr
    assert contents(tmp_path / "served models" / "digits") == contents(bundle)
    fetch_from_oci(Reference.parse(place), tmp_path / "back", None)
    assert contents(tmp_path / "back") == contents(bundle)
    assert publish(by, tmp_path, place).returncode == 2  # the tag exists


@pytest.mark.parametrize("by", ["github", "gitlab"])
def test_publishing_what_was_missed_stops_the_job_and_leaves_nothing(tmp_path: Path, by: str) -> None:
    small_bundle(tmp_path / "runs" / "release" / "bundle", status="missed")
    result = publish(by, tmp_path, "dir:served")
    assert result.returncode == 3
    assert "--force WHY" in result.stderr
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["github", "gitlab"])
def test_publishing_to_mlflow(tmp_path: Path, mlflow_uri: str, by: str) -> None:
    from mlflow import MlflowClient

    runnable_bundle(tmp_path / "runs" / "release")
    result = publish(by, tmp_path, f"mlflow:from-{by}@{mlflow_uri}")
    assert result.returncode == 0, result.stderr
    assert MlflowClient(mlflow_uri).get_model_version(f"from-{by}", "1").tags["status"] == "certified"


def test_publishing_is_left_out_where_no_destination_is_set(tmp_path: Path) -> None:
    job = GitHub(tmp_path)
    (step,) = (step for step in ACTION["runs"]["steps"] if step["id"] == "publish")
    assert not job._wanted(step)
    assert GitHub(tmp_path, publish_to="dir:served")._wanted(step)
    assert GITLAB["publish-release"]["rules"] == [{"if": "$SPDY_EDGE_PUBLISH_TO"}]
    assert GITLAB["publish-release"]["needs"] == ["certify-release"]  # which ends with the gate


def test_a_configuration_with_a_typo_stops_both_before_the_gate(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text("spedup = 3\n")
    for result in (GitHub(tmp_path).run("certify", "gate"), gitlab(tmp_path, "certify-release", slice(None))):
        assert result.returncode == 2
        assert "speedup" in result.stderr
        assert not (tmp_path / "gate.xml").exists()


def test_no_input_is_read_as_a_command() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]
        used = set(re.findall(r"\$\{?([A-Z_]+)", step["run"]))
        assert used <= step.get("env", {}).keys() | {"GITHUB_ACTION_PATH", "GITHUB_PATH", "GITHUB_OUTPUT"}
    steps = {step["id"] for step in ACTION["runs"]["steps"]}
    for output in ACTION["outputs"].values():
        assert set(re.findall(r"steps\.(\w+)\.", output["value"])) <= steps


@pytest.mark.slow
@pytest.mark.deepsparse
@pytest.mark.timeout(3000)
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed")
def test_the_action_the_include_and_the_guide_on_the_embedded_model(tmp_path: Path, registry: str) -> None:
    settings = block("toml", "resnet:digits").replace("speedup = 2.5", "speedup = 1.5")  # noise hardly leaves it open
    (tmp_path / "release.toml").write_text(settings)
    job = GitHub(tmp_path, max_drop="5")
    assert job.run("install").returncode == 0
    assert job.path.read_text() == f"{ROOT}/.venv/bin\n"
    quick = quick_pipeline(tmp_path / "bin")
    job.path.write_text(f"{job.path.read_text()}{quick}\n")
    result = job.run("certify")
    assert result.returncode in (0, 3, 6), result.stderr  # what so few measurements may say
    bundle = tmp_path / "runs" / "release" / "bundle"
    assert bundle.exists(), result.stderr
    assert json.loads((bundle / "certificate.json").read_text())["requested_speedup"] == 1.5
    assert job.run("gate").returncode == result.returncode
    assert f"Gate {'failed' if result.returncode else 'passed'}" in job.page.read_text()
    given = {"SPDY_EDGE_AGAINST": "runs/release", "SPDY_EDGE_MAX_DROP": "5"}
    assert gitlab(tmp_path, "certify-release", GATE_LINE, **given).returncode == result.returncode
    assert set(failures(tmp_path / "gate.xml")) <= {"certificate"}
    walk_through_the_guide(tmp_path, registry, quick)


def quick_pipeline(folder: Path) -> Path:
    """A folder with the command `pipeline` that measures little: the templates are tested here."""
    folder.mkdir()
    (folder / "pipeline").write_text(f'#!/bin/sh\nexec {shlex.join(LITTLE)} "$@"\n')
    (folder / "pipeline").chmod(0o755)
    return folder


def walk_through_the_guide(folder: Path, registry: str, program: Path) -> None:
    """Its script as it stands, but for the registry's name; the run is found done."""
    (folder / "train.py").touch()
    script = block("bash", "train.py").replace("registry.example", registry)
    path = os.pathsep.join([str(program), str(Path(sys.executable).parent), os.environ["PATH"]])
    result = execute(["bash", "-c", script], folder, {"PATH": path})
    assert result.returncode in (0, 3, 4, 6), result.stderr  # what the gate may say of a real network
    published = re.search(r"published: (oci://\S+)", result.stderr)
    assert bool(published) == (result.returncode == 0)
    if published:
        fetch_from_oci(Reference.parse(published[1]), folder / "back", None)
        assert contents(folder / "back") == contents(folder / "runs" / "release" / "bundle")


def instructions() -> list[tuple[str, str]]:
    """Name and text of the Containerfile's instructions."""
    lines = [line for line in (TEMPLATES / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def test_the_image_holds_every_package_in_locked_versions_and_runs_without_rights() -> None:
    parts = instructions()
    copied = [name for kind, text in parts if kind == "COPY" for name in shlex.split(text)[:-1]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [name.removesuffix("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert {*packages, "pyproject.toml", "constraints.txt", project["project"]["readme"]} == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    installs = [text for kind, text in parts if kind == "RUN" and "pip install" in text]
    assert installs
    assert all("--constraint constraints.txt" in text for text in installs)
    users = [text for kind, text in parts if kind == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert any(kind == "RUN" and re.search(rf"useradd .*\b{users[-1]}$", text) for kind, text in parts)
    assert all(kind != "RUN" for kind, _ in parts[parts.index(("USER", users[-1])) :])


PIP = """#!/bin/sh
printf "%s\\n" "$@" >"$ASKED"
exec "$PYTHON" -m pip install --quiet --no-deps --no-build-isolation --target "$SITE" .
"""
PROGRAM_THERE = """#!/bin/sh
PYTHONPATH="$SITE" exec "$PYTHON" -P -c 'import pipeline.cli; print(pipeline.__file__); pipeline.cli.main()' "$@"
"""


def test_the_images_steps_run_on_what_is_copied_into_it(tmp_path: Path) -> None:
    """COPY and RUN in a folder of their own; their pip notes what it is asked for and installs the package alone."""
    image, tools, site = (tmp_path / name for name in ("image", "bin", "site"))
    for folder in (image, tools):
        folder.mkdir()
    for name, text in {"pip": PIP, "pipeline": PROGRAM_THERE}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable, "SITE": str(site)}
    environment |= {"ASKED": str(tmp_path / "asked"), "TORCH_INDEX": "an index", "EXTRAS": "compress,mlflow"}
    for kind, text in instructions():
        if kind == "COPY":
            *sources, there = shlex.split(text)
            copy_into(image, sources, there)
        elif kind == "RUN" and "pip install" in text:
            result = execute(["sh", "-c", text], image, environment)
    assert result.returncode == 0, result.stderr
    where, version = result.stdout.splitlines()
    assert where == str(site / "pipeline" / "__init__.py")
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] in version
    locked = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked
    assert (tmp_path / "asked").read_text().splitlines() == [
        *("install", "--extra-index-url", "an index", "--constraint", "constraints.txt"),
        f"torch=={locked[1]}+cpu",
        ".[compress,mlflow]",
    ]


def copy_into(image: Path, sources: list[str], there: str) -> None:
    """As COPY does: files into a folder, and what is in a folder into another."""
    ignored = shutil.ignore_patterns("__pycache__")
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, image / there, ignore=ignored)
        else:
            shutil.copy(ROOT / source, image / there)


def test_the_image_is_built_and_run_as_the_guide_says() -> None:
    parts = instructions()
    arguments = {text.partition("=")[0] for kind, text in parts if kind == "ARG"}
    header = (TEMPLATES / "Containerfile").read_text()
    for words in (GUIDE, header):
        used = set(re.findall(r"--build-arg (\w+)=", words))
        assert "TORCH_INDEX" in used
        assert used <= arguments
    (user,) = (text for kind, text in parts if kind == "USER")
    (uid,) = re.findall(rf"useradd .*--uid (\d+) {user}", "\n".join(text for kind, text in parts if kind == "RUN"))
    assert f"uid={uid},gid={uid}" in GUIDE
    (home,) = (text.partition("=")[2] for kind, text in parts if kind == "ENV" and "SPDY_EDGE_HOME" in text)
    assert Path(home).parent == Path("/home") / user  # where that user may write
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"EXTRAS=([\w,]+)", header + GUIDE)
    assert {name for names in asked for name in names.split(",")} <= extras.keys()
