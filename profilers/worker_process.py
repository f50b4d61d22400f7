"""The measuring worker as a process: packed into one file, started on a device, listened to until it ends."""

import json
import queue
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import targets.runtimes
from targets.devices.base import Device


def pack_worker(path: Path) -> None:
    """Write the worker and the runtimes' files as one runnable zip file: the same bytes every time.

    Zip files know no time before 1980, which clocks of small devices and files of reproducible images have.
    """
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
        archive.write(Path(__file__).with_name("worker.py"), "__main__.py")
        archive.writestr(zipfile.ZipInfo("profilers/__init__.py"), "")
        for part in ("core_distance.py", "machine.py", "waiting.py"):
            archive.write(Path(__file__).with_name(part), f"profilers/{part}")
        for source in sorted(Path(targets.runtimes.__file__).parent.glob("*.py")):
            archive.write(source, f"runtimes/{source.name}")


def worker_events(command: Sequence[str], job: str, timeout_s: float, device: Device) -> Iterator[dict[str, Any]]:
    """Run the worker; kill it when no event comes within ``timeout_s``.

    Raises:
        UserError: the way to the device failed, not the worker.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
            _send(process.stdin, job)
            group, error = None, ""
            while True:
                try:
                    line = lines.get(timeout=timeout_s)
                except queue.Empty:
                    error = f"no answer within {timeout_s:g} s; a smaller --batch-size takes less"
                    process.kill()
                    break
                if line is None or not line.endswith("\n"):  # cut off in the middle
                    break
                begins = line.find('{"event"')
                if begins < 0:  # what a device's shell says as it starts
                    continue
                event = json.loads(line[begins:])
                if trouble := device.trouble(0, _all_words(log)):  # ssh may have warned, and gone on
                    raise trouble
                yield event
                if event["event"] == "done":
                    return
                group = event.get("group", group)
            code, words = _end(process), _all_words(log)
            if trouble := device.trouble(code, words):
                raise trouble
            yield {"event": "died", "group": group, "error": error or f"worker ended ({code}): {_last_words(words)}"}
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    stream.close()


def _end(process: "subprocess.Popen[str]") -> int:
    """The exit code of a worker that ends, or is made to."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _pump(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _send(stream: Any, job: str) -> None:
    try:
        stream.write(job + "\n")
        stream.flush()
    except BrokenPipeError:
        pass  # the worker is gone; the end of its output says so


def _all_words(log: Any) -> str:
    log.seek(0)
    return str(log.read())


def _last_words(words: str, characters: int = 600) -> str:
    lines = [line for line in words.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing")[-characters:]
