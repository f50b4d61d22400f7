"""A device that is reached with the system's ssh, under the user's own configuration, keys and known hosts.

Nothing of ours stays running there, and nothing is installed: the worker and the models are files in a folder below
the device's cache, which is removed at the end. Host keys are checked as the user's configuration says.
"""

import functools
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from targets.errors import ConfigError, RuntimeMissingError, UnreachableError, UserError
from targets.host import HostFingerprint, available_cores, described_host, pinned_cpus
from targets.registry import RUNTIMES, RuntimeInfo, runtime_info

SSH_VARIABLE = "SPDY_EDGE_SSH"
"""Environment variable with the ssh command, such as ``ssh -F file``."""
OPTIONS = ("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10")
MARK = "spdy-edge-begins"
"""What comes before it is said by the device's shell as it starts."""
SILENT_S, SLOWEST = 300.0, 20_000
"""A command that says nothing for as long hangs, as on a broken disk; what is sent along may take a second for so many
bytes."""
ROOM = ("No space left", "quota exceeded", "Read-only file system")
LOST = 255
"""What ssh itself exits with; programs of ours never do."""
PACKAGES = ("numpy", "onnx", *RUNTIMES)
FRESH_FOLDER = (
    'umask 077; d="${XDG_CACHE_HOME:-$HOME/.cache}/spdy-edge"; mkdir -p "$d" && '
    "find \"$d\" -mindepth 1 -maxdepth 1 -name 'run-*' -mtime +7 -exec rm -rf {} + ; "  # of runs that were killed
    'mktemp -d "$d/run-XXXXXXXX"'
)


class SshDevice:
    """A machine behind ``ssh://user@box:port``.

    Args:
        name: the address; user and port as ssh's own configuration says where they are left out.
        python: the interpreter there that has the runtime and numpy.

    Raises:
        ConfigError: ``name`` is no such address.
    """

    def __init__(self, name: str, python: str = "python3") -> None:
        self.name, self._python = name, python
        command, place = shlex.split(os.environ.get(SSH_VARIABLE, "ssh")), _destination(name)
        self._ssh, self._by_hand = [*command, *OPTIONS, *place], shlex.join([*command, *place])
        self._held: dict[str, None] = {}
        self._is_held_known = True

    def host(self) -> HostFingerprint:
        """The device's fingerprint."""
        return described_host(self._facts, self._root)

    def cores(self) -> int:
        """Physical cores that a process of that user may use."""
        return available_cores(self._root, self._facts["cpus"])

    def pinned_cpus(self, threads: int) -> list[int]:
        """Logical CPUs there to pin ``threads`` threads to."""
        return pinned_cpus(threads, self._root, self._facts["cpus"])

    def runtimes(self) -> list[RuntimeInfo]:
        """The runtimes that the device's interpreter has."""
        facts, isa = self._facts, self.host().isa
        return [
            runtime_info(name, Path(facts["interpreter"]), facts["packages"][name], isa)
            for name in RUNTIMES
            if name in facts["packages"] and "numpy" in facts["packages"]
        ]

    def hold(self, files: Sequence[Path]) -> list[str]:
        """Where the device has these files; others that were sent for earlier calls are removed to make room."""
        if not self._is_held_known:
            folder = shlex.quote(self._folder)
            there = set(self._run(f"mkdir -p -m 700 {folder} && ls {folder}").decode().splitlines())
            self._held = {name: None for name in self._held if name in there}
            self._is_held_known = True
        names = {path: f"{_digest(path)[:20]}-{path.name}" for path in files}
        missing = {path: name for path, name in names.items() if name not in self._held}
        if missing:
            unneeded = [name for name in self._held if name not in names.values()]
            self._send(missing, unneeded)
            self._held = dict.fromkeys(names.values())
        return [f"{self._folder}/{names[path]}" for path in files]

    def command(self, interpreter: Path, program: str) -> list[str]:
        """ssh, which starts the interpreter there.

        A shell waits for it, since ssh reports a program that died of a signal as a connection that was lost.
        """
        return [*self._ssh, shlex.join(["sh", "-c", f"{shlex.join([str(interpreter), '-I', program])}; exit $?"])]

    def trouble(self, code: int, words: str) -> UserError | None:
        """The error, if ssh says that it failed; what was sent may be gone then, as by a new start of the device."""
        said = f"{self.name}: {_last_line(words) or 'the connection was lost'}"
        # Where the user's configuration does not check keys strictly, ssh warns and goes on; nothing of ours does.
        if "HOST IDENTIFICATION HAS CHANGED" in words or "REVOKED HOST KEY" in words:
            return ConfigError(
                f"{said}\nThe device's host key is not the one that is known. If it was set up anew, compare its key "
                f"and correct known_hosts; if not, someone may be in between. Try by hand: {self._by_hand}"
            )
        if code != LOST:
            return None
        if "Host key verification failed" in words or "host key is known for" in words:
            return ConfigError(
                f"{said}\nNo host key of the device, or of a host on the way, is known yet. Compare it and accept it "
                f"once by hand: {self._by_hand}"
            )
        if (
            "Permission denied (" in words
            or "Could not resolve hostname" in words
            or "Too many authentication" in words
        ):
            return ConfigError(
                f"{said}\nNothing is asked for while a run works (BatchMode): `ssh` must get there by itself, with a "
                "key that the agent or the configuration gives. Correct host, user or keys."
            )
        self._is_held_known = False
        return UnreachableError(
            f"{said}\nSee that the device is up and can be reached, and repeat the command: a run goes on from what it "
            "has measured, a verification begins again."
        )

    @cached_property
    def _folder(self) -> str:
        folder = self._run(FRESH_FOLDER).decode().strip()
        weakref.finalize(self, _remove, self._ssh, folder)
        return folder

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What the device says of itself."""
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "describe.pyz")
            _pack_description(program)
            self._send({program: program.name}, ())  # what is held stays
        command = shlex.join(["exec", self._python, "-I", f"{self._folder}/{program.name}"])
        said = self._run(command, json.dumps({"packages": PACKAGES}).encode())
        try:
            facts: dict[str, Any] = json.loads(said)
        except ValueError:
            words = said.decode(errors="replace")[:200]
            raise UnreachableError(
                f"{self.name}: {self._python} there did not describe the device, it said {words!r}.\nSee what it "
                f"prints as it starts, or name another with the target's `python`. Try by hand: {self._by_hand}"
            ) from None
        return facts

    @cached_property
    def _root(self) -> Path:
        """The device's system files, here."""
        keeper = tempfile.TemporaryDirectory()
        weakref.finalize(self, keeper.cleanup)
        root = Path(keeper.name).resolve()
        for name, text in self._facts["files"].items():
            path = root.joinpath(name).resolve()
            if path.is_relative_to(root):  # a device is not to write elsewhere
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return root

    def _send(self, files: dict[Path, str], unneeded: Sequence[str]) -> None:
        """Send files as one archive; they appear under their names once they are whole."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, name in files.items():
                tar.add(path.resolve(), name)
        remove = f"rm -f -- {shlex.join(unneeded)} && " if unneeded else ""
        self._held = {name: None for name in self._held if name not in unneeded}
        self._run(
            f"cd {shlex.quote(self._folder)} && {remove}rm -rf incoming && mkdir incoming && "
            "tar -xf - -C incoming && mv incoming/* . && rmdir incoming",
            archive.getvalue(),
        )

    def _run(self, command: str, sent: bytes = b"") -> bytes:
        """What a shell command there prints.

        Raises:
            ConfigError: ssh is missing, or does not get there by itself.
            RuntimeMissingError: the interpreter is not there.
            UnreachableError: the device cannot be reached, or the command failed.
        """
        try:
            # Whatever the user's own shell there is, and in the words that are looked for below.
            shell = shlex.join(["sh", "-c", f"export LC_ALL=C; echo {MARK}; {command}"])
            most_s = SILENT_S + len(sent) / SLOWEST
            done = subprocess.run([*self._ssh, shell], input=sent, capture_output=True, check=False, timeout=most_s)
        except subprocess.TimeoutExpired:
            raise UnreachableError(
                f"{self.name}: a command did not end within {most_s:.0f} s, although the device answers. See whether "
                "its disk and its load are well, and repeat."
            ) from None
        except FileNotFoundError:
            raise ConfigError(f"{self._ssh[0]} is not installed here, and {self.name} is reached with it.") from None
        said = done.stderr.decode(errors="replace")
        if error := self.trouble(done.returncode, said):
            raise error
        begins, mark, printed = done.stdout.partition(f"{MARK}\n".encode())
        if done.returncode == 0 and mark:
            return printed
        words = _last_line(said) or _last_line(begins.decode(errors="replace"))
        if any(reason in said for reason in ROOM):
            raise UnreachableError(
                f"{self.name}: the device has no room left ({words}). Make room below ~/.cache there, or set "
                "XDG_CACHE_HOME there to a place that can be written, and repeat."
            )
        if done.returncode in (126, 127) and self._python in words:
            raise RuntimeMissingError(
                f"{self.name}: {words}\nThe target's `python` must name an interpreter there with numpy and a runtime."
            )
        raise UnreachableError(
            f"{self.name}: {words or f'a command ended with {done.returncode}'}\n"
            f"The device needs a POSIX shell, tar and Python 3.8 or newer. Try by hand: {self._by_hand}"
        )


def _destination(name: str) -> list[str]:
    """Arguments of ssh for an address."""
    try:
        parts = urlsplit(name)
        port, host, user, password = parts.port, parts.hostname, parts.username, parts.password
    except ValueError:
        port = host = user = password = None
    is_option = any((word or "").startswith("-") for word in (host, user))
    if not (host and re.fullmatch(r"ssh://[^/?#\s]+/?", name)) or is_option or password is not None:
        raise ConfigError(f"{name!r} is no address of a device. Give ssh://user@box or ssh://user@box:port.")
    return [*(["-p", str(port)] if port else []), *(["-l", user] if user else []), "--", host]


def _remove(ssh: Sequence[str], folder: str) -> None:
    """Remove our folder there; one that is left is removed by a run a week later."""
    if re.fullmatch(r".+/spdy-edge/run-\w+", folder):
        with suppress(subprocess.TimeoutExpired):
            subprocess.run([*ssh, f"rm -rf -- {shlex.quote(folder)}"], capture_output=True, check=False, timeout=60)


def _pack_description(path: Path) -> None:
    import archspec

    package = Path(archspec.__file__ or "").parent
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
        archive.write(Path(__file__).parents[1] / "describe.py", "__main__.py")
        for file in sorted(package.rglob("*")):
            name = f"archspec/{file.relative_to(package).as_posix()}"
            if file.suffix in (".py", ".json"):
                archive.write(file, name)
            elif file.is_dir() and not (file / "__init__.py").exists():
                # In a zip file, folders alone are no packages.
                archive.writestr(zipfile.ZipInfo(f"{name}/__init__.py"), "")


@functools.lru_cache(maxsize=4096)
def _digest_of(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001 - they tell one content from another
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-600:] if lines else ""
