"""The CI templates' shell steps, run as they stand, as GitHub's and GitLab's runners run them."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from targets import environments
from tests.releases import small_bundle, speedup

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "ci-templates"
ACTION = yaml.safe_load((TEMPLATES / "action.yml").read_text())
GITLAB = yaml.safe_load((TEMPLATES / "release.gitlab-ci.yml").read_text())
RELEASE = """
target = "auto"
runtime = "deepsparse"
speedup = 2.5
batch_size = 32
levels = 14
plans = 24
evaluations = 25
calibration_samples = 256
correction_passes = 4
compare = false
"""
"""Settings of a run on the embedded model that takes a minute or two."""


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
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False
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
@pytest.mark.timeout(1200)
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed")
def test_the_action_and_the_include_on_the_embedded_model(tmp_path: Path) -> None:
    (tmp_path / "release.toml").write_text(RELEASE)
    job = GitHub(tmp_path, max_drop="5")
    result = job.run("install", "certify")
    assert job.path.read_text() == f"{ROOT}/.venv/bin\n"
    assert result.returncode in (0, 3, 6), result.stderr  # certified, unless the machine has neighbours
    assert (tmp_path / "runs" / "release" / "bundle").exists(), result.stderr
    assert job.run("gate").returncode == result.returncode
    assert f"Gate {'failed' if result.returncode else 'passed'}" in job.page.read_text()
    given = {"SPDY_EDGE_AGAINST": "runs/release", "SPDY_EDGE_MAX_DROP": "5"}
    assert gitlab(tmp_path, "certify-release", GATE_LINE, **given).returncode == result.returncode
    assert set(failures(tmp_path / "gate.xml")) <= {"certificate"}


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


def test_the_images_shell_lines_ask_for_torchs_cpu_build_of_the_lock(tmp_path: Path) -> None:
    """Run with a pip that writes down what it is asked for."""
    (line,) = (text for kind, text in instructions() if kind == "RUN" and "pip install" in text)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("pip", "pipeline"):
        (tools / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>"$ASKED"\n')
        (tools / name).chmod(0o755)
    asked = tmp_path / "asked"
    environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "ASKED": str(asked), "TORCH_INDEX": "an index"}
    result = execute(["sh", "-c", line], ROOT, environment)
    assert result.returncode == 0, result.stderr
    locked = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked
    assert asked.read_text().split("\n")[:7] == [
        *("pip", "install", "--extra-index-url", "an index", "--constraint", "constraints.txt"),
        f"torch=={locked[1]}+cpu",
    ]
