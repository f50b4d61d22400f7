"""A real sshd on the loopback, with its own port, keys and known hosts."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from targets.devices.registry import open_device
from tests.tracking.mlflow_process import free_port

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = "sshd is not installed: apt-get install openssh-server"


@dataclass
class Sshd:
    """A server and what a client needs to reach it.

    Args:
        address: of the device.
        command: the ssh command with a configuration of its own.
        folder: where keys, known hosts and the user's cache are.
    """

    address: str
    command: str
    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """End the server and every session."""
        with suppress(psutil.NoSuchProcess):
            for session in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if session.name().startswith("sshd"):  # what they started is to find out by itself
                        session.kill()
        self.process.kill()
        self.process.wait()

    def hang(self) -> list[int]:
        """Stop every session where it is, and give their process ids; new ones can be opened."""
        sessions = [p for p in psutil.Process(self.process.pid).children(recursive=True) if p.name().startswith("sshd")]
        for session in sessions:
            session.suspend()
        return [session.pid for session in sessions]

    def start(self) -> None:
        """Start the server again."""
        self.process = launch(self.folder, self.port)


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def launch(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    assert SSHD
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    return process


@contextmanager
def sshd(folder: Path, *settings: str) -> Iterator[Sshd]:
    """A server for the current user alone; further lines of its configuration in ``settings``."""
    port, user = free_port(), getpass.getuser()
    host_key, client_key = make_key(folder / "host_key"), make_key(folder / "client_key")
    shutil.copy(client_key.with_name("client_key.pub"), folder / "authorized_keys")
    (folder / "cache").mkdir()
    lines = [f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {host_key}", "UsePAM no", "StrictModes no"]
    lines += [f"AuthorizedKeysFile {folder}/authorized_keys", f"PidFile {folder}/pid", "PasswordAuthentication no"]
    lines += [*settings, f"SetEnv XDG_CACHE_HOME={folder}/cache"]  # the first one counts
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    public = host_key.with_name("host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "ssh_config").write_text(
        f"Host *\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n  IdentityFile {client_key}\n"
        "  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
    )
    command = f"ssh -F {folder}/ssh_config -o ConnectTimeout=10"
    server = Sshd(f"ssh://{user}@127.0.0.1:{port}", command, folder, port, launch(folder, port))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def reachable_sshd(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A server that devices of this process are reached through."""
    with sshd(folder) as running:
        patch.setenv("SPDY_EDGE_SSH", running.command)
        open_device.cache_clear()
        yield running
        open_device.cache_clear()
