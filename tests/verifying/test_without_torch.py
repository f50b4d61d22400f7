"""`pip install 'spdy-edge[verify]'` is enough to verify, to load and to gate a bundle."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.test_packaging import PACKAGES, ROOT, everything_needed
from tests.verifying.bundles import runnable_bundle

HEAVY = ("torch", "transformers", "onnx", "scipy", "sklearn", "pandas", "matplotlib", "accelerate", "nncf")
CODE = """
import sys
sys.path[:0] = {paths!r}
from pipeline.cli import main
try:
    main()
finally:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the extra brings and nothing else: links to the installed packages, and to this checkout's."""
    folder = tmp_path_factory.mktemp("site-packages")
    for requirement in everything_needed("verify"):
        distribution = metadata.distribution(requirement.name)
        for file in distribution.files or []:
            top = Path(file.parts[0])
            if file.parts[0] not in ("..", "__pycache__") and not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    for name in PACKAGES:
        (folder / name).symlink_to(ROOT / name)
    return folder


def command(packages: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command under an interpreter that finds those packages alone."""
    code = CODE.format(paths=[str(packages)], heavy=HEAVY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_bundle_is_verified(packages: Path, bundle: Path, tmp_path: Path) -> None:
    assert not (packages / "torch").exists()
    result = command(packages, "verify", bundle, "--no-measure", "--record", "record.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "record.json").exists()
    result = command(packages, "verify", bundle, "--budget", 1, "--record", "measured.json", cwd=tmp_path)
    assert result.returncode in (0, 3, 6), result.stderr  # two processes, beside whatever else runs here
    assert json.loads((tmp_path / "measured.json").read_text())["speedup"]["measured_speedup"] > 1


def test_its_envelope_is_measured(packages: Path, bundle: Path, tmp_path: Path) -> None:
    """Other batch sizes only where the runtime takes them of any file: onnx is not there to change the shapes."""
    places = ("--threads", 1, "--batch-sizes", "2,4", "--no-neighbour", "--budget", 1, "--json")
    result = command(packages, "envelope", bundle, *places, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    two, four = json.loads(result.stdout)["places"]
    assert two["status"] == "not possible"
    assert four["speedup"]["value"] > 1
    assert command(packages, "gate", bundle, cwd=tmp_path).returncode == 0


def test_what_needs_more_says_what_to_install(packages: Path, tmp_path: Path) -> None:
    result = command(packages, "run", "--speedup", "2", cwd=tmp_path)
    assert result.returncode == 7
    assert "spdy-edge[compress]" in result.stderr
    assert "Traceback" not in result.stderr
