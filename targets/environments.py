"""Managed environments: interpreters of their own for runtimes that cannot live beside current packages."""

import os
import platform
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from targets.errors import ConfigError, RuntimeMissingError
from targets.homes import data_home
from targets.unknown import unknown_name

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ManagedEnvironment:
    """An environment that can be made anywhere.

    Args:
        package: the distribution, and the module, that it is made for.
        lock: requirements file that pins every package.
        pythons: versions of Python that the lock can be installed under.
        variable: environment variable that may name an interpreter to use instead.
    """

    package: str
    version: str
    lock: Path
    pythons: tuple[str, ...]
    variable: str

    @property
    def folder(self) -> Path:
        """Where it is, once it is installed."""
        return data_home() / "runtimes" / f"{self.package}-{self.version}"

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def marker(self) -> Path:
        """File that is there once everything else is."""
        return self.folder / ".complete"

    def beside(self, suffix: str) -> Path:
        """A file next to the folder."""
        return self.folder.with_name(self.folder.name + suffix)


MANAGED = {
    "deepsparse": ManagedEnvironment(
        package="deepsparse",
        version="1.8.0",
        lock=Path(__file__).with_name("deepsparse-lock.txt"),
        pythons=("3.11",),
        variable="SPDY_EDGE_DEEPSPARSE_PYTHON",
    ),
}


def installation(name: str) -> tuple[Path, str] | None:
    """Interpreter and version of a managed runtime, None if it is not installed.

    Raises:
        ConfigError: the runtime is not a managed one, or its variable names something without it.
    """
    environment = _managed(name)
    if chosen := os.environ.get(environment.variable):
        version = _version_under(chosen, environment.package)
        if version is None:
            raise ConfigError(
                f"{environment.variable} is {chosen!r}, which is no Python interpreter with {environment.package}. "
                f"Correct it, or unset it and run `pipeline runtimes install {name}`."
            )
        return Path(chosen), version
    return (environment.interpreter, environment.version) if _is_complete(environment) else None


def installed(name: str) -> Path | None:
    """The interpreter that has a managed runtime, None if there is none.

    Raises:
        ConfigError: as `installation` does.
    """
    found = installation(name)
    return found[0] if found else None


def install(name: str, progress: Progress) -> Path:
    """Make a runtime's environment unless it is there, and give its interpreter.

    What an interrupted installation left is removed and made again; of several processes one installs and the
    others wait.

    Args:
        name: of a managed runtime.
        progress: told what is being done, line by line.

    Raises:
        ConfigError: as `installation` does.
        RuntimeMissingError: it cannot be installed here: says why and what to do.
    """
    environment = _managed(name)
    if interpreter := installed(name):
        return interpreter
    python = _suitable_python(environment)
    try:
        environment.folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(environment.beside(".lock"), progress) as lock:
            if not _is_complete(environment):
                _build(environment, python, lock, progress)
    except OSError as error:
        remedy = "Give it room and the right to write, or let SPDY_EDGE_HOME name another folder"
        raise _failed(environment, f"writing to {environment.folder} failed", remedy, [str(error)]) from error
    return environment.interpreter


def _managed(name: str) -> ManagedEnvironment:
    if name in ("openvino", "onnxruntime"):
        raise ConfigError(f"{name} has no environment of its own: run `pip install {name}` beside this package.")
    if name not in MANAGED:
        raise unknown_name("managed runtime", name, MANAGED)
    return MANAGED[name]


def _is_complete(environment: ManagedEnvironment) -> bool:
    """Whether it was finished and the Python that it builds upon is still there."""
    return environment.marker.is_file() and environment.interpreter.exists()


def _version_under(interpreter: str, package: str) -> str | None:
    """Version of a package under another interpreter, None if either is missing."""
    return _answer(interpreter, f"from importlib.metadata import version; print(version({package!r}))")


def _answer(interpreter: str, code: str) -> str | None:
    """What a line of Python prints under another interpreter, None if it fails."""
    try:
        result = subprocess.run([interpreter, "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _suitable_python(environment: ManagedEnvironment) -> str:
    system = f"{platform.system()} {platform.machine()}"
    if system != "Linux x86_64":
        raise RuntimeMissingError(
            f"{environment.package} runs on Linux x86_64 only, and this is {system}. "
            "Choose another runtime with --runtime."
        )
    for candidate in (sys.executable, *(shutil.which(f"python{version}") for version in environment.pythons)):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if candidate and _answer(candidate, code) in environment.pythons:
            return candidate
    needed = " or ".join(f"python{version}" for version in environment.pythons)
    raise _failed(environment, f"it needs {needed}, which is not on PATH", f"Install {needed} with its venv module")


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[int]:
    """Hold a lock among processes, given as a file descriptor; it ends with the last process that has that open."""
    import fcntl

    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is installing it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def _build(environment: ManagedEnvironment, python: str, lock: int, progress: Progress) -> None:
    """Make the environment in place, since it could not be moved; the marker comes last."""
    folder, unfinished = environment.folder, environment.beside(".unfinished")
    if folder.exists():
        if not (unfinished.exists() or environment.marker.exists()):
            raise _failed(environment, f"{folder} is in the way, made by somebody else", "Move it away")
        progress(f"removing the incomplete {folder}")
    unfinished.touch()
    if folder.exists():
        shutil.rmtree(folder)
    here = str(environment.interpreter)
    pip = [here, "-I", "-m", "pip", "install", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
    for what, command in {
        "making the environment": [python, "-I", "-m", "venv", str(folder)],
        "installing packages": [*pip, "-r", str(environment.lock)],
        "checking that it works": [here, "-I", "-c", f"import {environment.package}"],
    }.items():
        progress(what)
        code, last_lines = _run(command, lock, progress)
        if code:
            remedy = "Check the network, the space on disk and pip's settings"
            raise _failed(environment, f"{what} failed", remedy, last_lines)
    environment.marker.touch()
    unfinished.unlink()


def _run(command: Sequence[str], lock: int, progress: Progress) -> tuple[int, list[str]]:
    """Run a command, passing on its lines; its exit status and its last lines.

    The command holds the lock too, so that should this process die, nobody else starts before it has ended.
    """
    settings = os.environ | {"NM_DISABLE_ANALYTICS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    settings.pop("PIP_CONSTRAINT", None)  # meant for another environment
    last_lines: deque[str] = deque(maxlen=8)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings, pass_fds=[lock]
    ) as process:
        try:
            assert process.stdout
            for line in process.stdout:
                last_lines.append(line.rstrip())
                progress(line.rstrip())
        except BaseException:
            process.kill()
            raise
    return process.returncode, list(last_lines)


def _failed(environment: ManagedEnvironment, why: str, remedy: str, lines: Sequence[str] = ()) -> RuntimeMissingError:
    said = "".join(f"\n  {line}" for line in lines)
    return RuntimeMissingError(
        f"{environment.package} {environment.version} cannot be installed: {why}.{said}\n"
        f"{remedy} and run `pipeline runtimes install {environment.package}` again, let {environment.variable} name "
        "a Python that has it, or choose another runtime with --runtime."
    )
