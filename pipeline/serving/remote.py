"""An engine in a process of its own: for runtimes that live under another interpreter."""

import json
import mmap
import os
import select
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import targets.runtimes
from pipeline.serving import server
from pipeline.serving.record import ServingRecord
from targets.errors import RuntimeMissingError
from targets.host import pinned_cpus
from targets.registry import RuntimeInfo

PATIENCE_S = 300.0
"""How long a server may take to compile, or to run one batch."""
LONGEST_ANSWER = 1 << 16


class RemoteEngine:
    """One model in one server process; batches travel through memory that both map, and pipes say when.

    Requests must come one at a time. A request that is interrupted ends the server, since its answer would otherwise
    be taken for the next one's.

    Args:
        info: an installed runtime.
        model: the file to serve.
        threads: that compute, pinned to cores of their own as they were when the bundle was certified.

    Raises:
        RuntimeMissingError: the runtime cannot run the model.
    """

    def __init__(self, info: RuntimeInfo, model: Path, record: ServingRecord, threads: int) -> None:
        self._name = info.name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        memory = os.memfd_create("spdy-edge")
        job = {
            "runtime": info.name,
            "model": str(model.resolve()),
            "threads": threads,
            "batch_size": record.batch_size,
            "precision": record.precision,
            "cpus": pinned_cpus(threads),
            "memory": memory,
        }
        try:
            with tempfile.TemporaryDirectory() as folder:
                program = Path(folder, "server.pyz")
                pack_server(program)
                self._start([str(info.interpreter), "-I", str(program), json.dumps(job)], memory)
                layout = self._layout()
            self._map(memory, layout)
        finally:
            os.close(memory)

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Outputs of one whole batch.

        Raises:
            RuntimeMissingError: the server has ended or the runtime failed.
        """
        for shared, array in zip(self._inputs, batch, strict=True):
            shared[...] = array
        try:
            os.write(self._requests, b"\n")
            answer = self._answer()
        except BrokenPipeError:
            raise self._ended() from None
        except BaseException:
            self._process.kill()
            self._process.wait()  # or the next batch might be given the answer that is still under way
            raise
        if answer != server.OK:
            raise RuntimeMissingError(f"{self._name} failed on this batch: {answer.decode(errors='replace')}")
        return self._output.copy()

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _start(self, command: list[str], memory: int) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            pass_fds=[memory],
            start_new_session=True,  # Ctrl-C is for this process, which may want to go on
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def _layout(self) -> dict[str, Any]:
        """What the server says once the model has run."""
        try:
            layout: dict[str, Any] = json.loads(self._answer())
            if "error" in layout:
                raise RuntimeMissingError(f"{self._name} cannot run the bundle's network: {layout['error']}")
        except BaseException:
            self._process.kill()
            self.close()
            raise
        return layout

    def _map(self, memory: int, layout: dict[str, Any]) -> None:
        shared = mmap.mmap(memory, 0)
        *inputs, output = (np.ndarray(shape, dtype, shared, offset) for shape, dtype, offset in layout["arrays"])
        self._inputs: list[NDArray[Any]] = inputs
        self._output: NDArray[Any] = output

    def _answer(self) -> bytes:
        """The next answer; the server writes each of them in one piece."""
        if not self._poll.poll(PATIENCE_S * 1000):
            self._process.kill()
            raise RuntimeMissingError(f"{self._name} gave no answer within {PATIENCE_S:g} s. Load the bundle again.")
        answer = os.read(self._answers, LONGEST_ANSWER)
        if not answer:
            raise self._ended()
        return answer

    def _ended(self) -> RuntimeMissingError:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1] if lines else "it said nothing"
        return RuntimeMissingError(f"The {self._name} server has ended ({code}): {said}\nLoad the bundle again.")


def pack_server(path: Path) -> None:
    """Write the serving program and the runtimes' files as one runnable zip file."""
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
        archive.write(Path(server.__file__), "__main__.py")
        for source in sorted(Path(targets.runtimes.__file__).parent.glob("*.py")):
            archive.write(source, f"runtimes/{source.name}")
