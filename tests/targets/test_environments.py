import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from targets.environments import MANAGED, install, installed
from targets.errors import ConfigError, RuntimeMissingError

CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path
from targets.environments import MANAGED, install
MANAGED["deepsparse"] = replace(
    MANAGED["deepsparse"],
    package="tinyruntime",
    version="1.0",
    lock=Path(sys.argv[1]),
    pythons=(sys.argv[2],),
    variable="TINY_PYTHON",
)
print("at", install("deepsparse", lambda line: print(line, flush=True)))
"""


def write_wheel(folder: Path, source: str = "") -> Path:
    """A package that can be installed without a network."""
    path = folder / "tinyruntime-1.0-py3-none-any.whl"
    info = "tinyruntime-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinyruntime.py", source)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyruntime\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tinyruntime.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A managed environment in a temporary home, made for a tiny package; gives its lock."""
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tinyruntime @ {write_wheel(tmp_path).as_uri()}\n")
    tiny = replace(
        MANAGED["deepsparse"],
        package="tinyruntime",
        version="1.0",
        lock=lock,
        pythons=(CURRENT,),
        variable="TINY_PYTHON",
    )
    monkeypatch.setitem(MANAGED, "deepsparse", tiny)
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "home"))
    return lock


def folder() -> Path:
    return MANAGED["deepsparse"].folder


def start_install(lock: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(lock), CURRENT], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


@pytest.mark.slow
def test_a_failed_installation_says_what_pip_said_and_the_next_one_starts_afresh(lock: Path, tmp_path: Path) -> None:
    good = lock.read_text()
    lock.write_text(f"tinyruntime @ {(tmp_path / 'absent.whl').as_uri()}\n")
    with pytest.raises(
        RuntimeMissingError, match=r"(?s)installing packages failed.*absent\.whl.*runtimes install"
    ) as e:
        install("deepsparse", lambda line: None)
    assert e.value.exit_code == 7
    assert installed("deepsparse") is None
    (folder() / "left-behind").touch()
    lock.write_text(good)
    said: list[str] = []
    python = install("deepsparse", said.append)
    assert python == installed("deepsparse")
    assert "installing packages" in said
    assert not (folder() / "left-behind").exists()
    assert subprocess.run([python, "-c", "import tinyruntime"], check=False).returncode == 0
    assert install("deepsparse", lambda line: pytest.fail(f"installed again: {line}")) == python
    python.unlink()
    assert installed("deepsparse") is None  # its Python is gone


@pytest.mark.slow
def test_a_package_that_does_not_import_is_not_installed(lock: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path, "raise OSError('this CPU has no AVX2')")
    with pytest.raises(RuntimeMissingError, match=r"(?s)checking that it works failed.*no AVX2"):
        install("deepsparse", lambda line: None)
    assert installed("deepsparse") is None


@pytest.mark.slow
def test_a_killed_installation_is_made_again(lock: Path) -> None:
    process = start_install(lock)
    while not (folder() / "pyvenv.cfg").exists():
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert installed("deepsparse") is None
    python = install("deepsparse", lambda line: None)
    assert subprocess.run([python, "-c", "import tinyruntime"], check=False).returncode == 0


@pytest.mark.slow
def test_of_two_processes_one_installs_and_the_other_waits(lock: Path) -> None:
    processes = [start_install(lock), start_install(lock)]
    said = [process.communicate()[0].splitlines() for process in processes]
    python = MANAGED["deepsparse"].interpreter
    assert [lines[-1] for lines in said] == [f"at {python}"] * 2
    assert sum(lines.count("making the environment") for lines in said) == 1
    assert python == installed("deepsparse")


def test_a_folder_of_somebody_else_is_left_alone(lock: Path) -> None:
    folder().mkdir(parents=True)
    (folder() / "thesis.txt").write_text("precious")
    with pytest.raises(RuntimeMissingError, match="in the way"):
        install("deepsparse", lambda line: None)
    assert (folder() / "thesis.txt").read_text() == "precious"


def test_without_a_suitable_python_it_says_which_one_is_needed(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MANAGED, "deepsparse", replace(MANAGED["deepsparse"], pythons=("3.3", "3.4")))
    with pytest.raises(RuntimeMissingError, match=r"needs python3\.3 or python3\.4"):
        install("deepsparse", lambda line: None)
    assert not folder().parent.exists()


def test_a_python_that_only_pretends_is_passed_over(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "python3.4"
    shim.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(MANAGED, "deepsparse", replace(MANAGED["deepsparse"], pythons=("3.4",)))
    with pytest.raises(RuntimeMissingError, match=r"needs python3\.4"):
        install("deepsparse", lambda line: None)


def test_a_home_that_cannot_be_written_is_reported(lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "file"))
    with pytest.raises(RuntimeMissingError, match="SPDY_EDGE_HOME"):
        install("deepsparse", lambda line: None)


def test_other_systems_are_refused(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(RuntimeMissingError, match=r"Linux x86_64 only.*aarch64"):
        install("deepsparse", lambda line: None)


@pytest.mark.parametrize(("name", "fragment"), [("openvino", "pip install openvino"), ("deepspars", "'deepsparse'")])
def test_what_is_not_managed_is_refused(name: str, fragment: str) -> None:
    with pytest.raises(ConfigError, match=fragment):
        install(name, lambda line: None)


def test_the_lock_pins_every_package() -> None:
    deepsparse = MANAGED["deepsparse"]
    lines = [line for line in deepsparse.lock.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert f"deepsparse=={deepsparse.version}" in lines
