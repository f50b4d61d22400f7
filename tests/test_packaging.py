"""The package as it is installed: version, command, data files, and a lock that leaves nothing open."""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from targets.environments import MANAGED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("pipeline", "profilers", "targets", "calibration", "reports")
DATA = (
    "targets/presets/intel.toml",
    "targets/presets/amd.toml",
    "targets/presets/auto.toml",
    "targets/deepsparse-lock.txt",
    "reports/templates/report.html",
    "reports/templates/report.css",
)
TOOLS = {"pip", "setuptools", "wheel"}
"""What an environment is made with, rather than what is installed into it."""


def test_the_version_is_one_and_the_same() -> None:
    version = PROJECT["project"]["version"]
    assert metadata.version("spdy-edge") == version
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest.group(1) == version


def test_the_command_is_installed_and_says_its_version() -> None:
    (entry,) = (e for e in metadata.entry_points(group="console_scripts") if e.name == "pipeline")
    assert entry.value == PROJECT["project"]["scripts"]["pipeline"]
    assert callable(entry.load())
    program = Path(sys.executable).with_name("pipeline")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert PROJECT["project"]["version"] in said


def copy_of_the_sources(folder: Path) -> Path:
    """The checkout without what tools have put there, since building leaves files behind."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in (*PACKAGES, "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_wheel_has_every_module_and_data_file_and_nothing_else(tmp_path: Path) -> None:
    setuptools = pytest.importorskip("setuptools")
    if Version(setuptools.__version__) < Version("70.1"):
        pytest.skip("setuptools before 70.1 cannot build a wheel by itself, and a newer one may need a network")
    source = copy_of_the_sources(tmp_path / "source")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("spdy_edge-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(source).as_posix() for name in PACKAGES for path in (source / name).rglob("*.py")}
    assert found == modules | set(DATA)


def pins(path: Path) -> dict[str, str]:
    """Package → version of a lock, every line of which must pin one."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 and re.fullmatch(r"[\w.!+]+", pair[1]) for pair in pairs), path
    names = [canonicalize_name(name) for name, _ in pairs]
    assert len(names) == len(set(names)), f"{path.name} pins a package twice"
    return dict(zip(names, (version for _, version in pairs), strict=True))


def everything_needed(*extras: str) -> Iterator[Requirement]:
    """Requirements of the project with some extras, and theirs, as far as they hold here."""
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    waiting = [Requirement(text) for text in texts]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if (requirement.name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((requirement.name, frozenset(requirement.extras)))
        yield requirement
        for text in metadata.requires(requirement.name) or []:
            further = Requirement(text)
            if not further.marker or any(further.marker.evaluate({"extra": e}) for e in {"", *requirement.extras}):
                waiting.append(further)


def test_the_lock_pins_everything_that_is_installed_at_a_version_that_fits() -> None:
    locked = pins(ROOT / "constraints.txt")
    assert locked["torch"] == "2.13.0"
    for requirement in everything_needed("compress", "dev"):
        name = canonicalize_name(requirement.name)
        if name in TOOLS:
            continue
        assert name in locked, f"{name} is not in constraints.txt: run `make lock`"
        assert requirement.specifier.contains(locked[name], prereleases=True), (
            f"{requirement}: {locked[name]} is locked"
        )


def test_the_runtimes_locks_pin_what_they_are_made_for() -> None:
    for environment in MANAGED.values():
        assert pins(environment.lock)[environment.package] == environment.version


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def places_of_this_machine() -> set[str]:
    """The checkout, what lies beside it, the user's home, and where pip is told to look."""
    places = {str(ROOT), str(Path.home())} - {"/nonexistent", tempfile.gettempdir()}  # which tests name, too
    if len(ROOT.parts) > 2:
        places |= {str(path) for path in ROOT.parent.iterdir()}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.endswith(("index-url", "find-links")):
            places |= {re.sub(r"^\w+://", "", place).rstrip("/") for place in value.strip("'\"").split()}
    return {place for place in places if len(place.strip("/")) > 1}


def test_no_tracked_file_names_a_place_of_this_machine_or_a_package_index() -> None:
    hosts = r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|files\.pypi|anaconda\.(?:org|com)"
    places = "|".join(re.escape(place) for place in sorted(places_of_this_machine()))
    pattern = re.compile(rf"(?<![\w.])(?:{places})(?![\w-])|{hosts}")
    assert pattern.search(f"see {ROOT}/x")
    named = [f"{name}: {found.group()}" for name, text in tracked_texts() for found in pattern.finditer(text)]
    assert not named
