"""A real dask cluster on loopback: a scheduler and two worker processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.tracking.mlflow_process import free_port

ROOT = Path(__file__).parents[2]
PATIENT = {"distributed.comm.timeouts.tcp": "600s", "distributed.comm.timeouts.connect": "600s"}
"""On a busy machine processes may stand still for longer than dask waits by default."""


class Cluster:
    """Its address and processes."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        self._folder = folder
        self._scheduler = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        flags = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
        self.workers = [self._start("dask_worker", self.address, *flags) for _ in range(2)]

    def _start(self, module: str, *flags: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        waits = {"DASK_" + name.replace(".", "__").upper(): value for name, value in PATIENT.items()}
        environment = {**os.environ, **waits, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"distributed.cli.{module}", *flags]
        with (self._folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)

    def wait(self, client: Any) -> None:
        """Until both workers are there."""
        client.wait_for_workers(2, timeout=600)

    def kill_one(self) -> None:
        """As a crash or an empty battery would."""
        self.workers[0].send_signal(signal.SIGKILL)
        self.workers[0].wait()

    def stop(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that is gone afterwards."""
    import dask
    from distributed import Client

    cluster = Cluster(folder)
    try:
        with dask.config.set(PATIENT):
            with Client(cluster.address, set_as_default=False) as client:
                cluster.wait(client)
            yield cluster
    finally:
        cluster.stop()
