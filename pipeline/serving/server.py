"""The serving program: runs a model under its runtime's own interpreter, for a process that cannot import it.

It is packed with the runtimes' files into one zip file and run under the runtime's interpreter (3.8 or newer), so it
imports the standard library, numpy and the runtime, and nothing else.

Its argument is a job (JSON): {"runtime", "model", "threads", "batch_size", "precision", "cpus", "memory"}, the last
the descriptor of a memory file that both processes map. Once the model has run, the program sizes that file and says
where things are in it, {"arrays": [[shape, type, offset in bytes], …]}, the inputs in the model's order and then its
first output, or {"error": text}. Then, for every byte on standard input, it runs the batch that lies in the memory,
leaves the output there, and answers OK or what went wrong. It ends when standard input does, so that it never
outlives who started it.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import select
import sys
import time
import traceback
from typing import Any

LONGEST = 2000
"""Characters of an answer at most, so that a pipe passes it on in one piece."""
OK = b"ok"
AWAKE_S = 50e-6
"""How long the next request is looked for before the program sleeps: being woken takes longer than a small layer."""


def main() -> None:
    """Compile, then serve until standard input ends."""
    answers = claim_stdout()
    job = json.loads(sys.argv[1])
    try:
        if job["cpus"]:
            os.sched_setaffinity(0, job["cpus"])
        import numpy as np

        runtime = importlib.import_module("runtimes." + job["runtime"])
        model = runtime.compile(job["model"], job["threads"], job["batch_size"], precision=job["precision"])
        inputs, output, layout = share(model, job["memory"], np)
    except Exception as error:
        os.write(answers, json.dumps({"error": describe(error)}).encode())
        return
    os.write(answers, json.dumps(layout).encode())
    with model:
        serve(model, inputs, output, answers)


def claim_stdout() -> int:
    """A descriptor for answers: what a runtime prints goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def share(model: Any, memory: int, np: Any) -> Any:
    """Arrays in the shared memory for inputs and first output, whose shape one run tells, and their layout."""
    samples = [np.zeros(shape, dtype) for _, shape, dtype in model.input_specs()]
    arrays, end = [], 0
    for array in [*samples, model.run(samples)[0]]:
        arrays.append([list(array.shape), array.dtype.name, end])
        end += -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    os.ftruncate(memory, end)
    shared = mmap.mmap(memory, end)
    *inputs, output = [np.ndarray(shape, dtype, shared, offset) for shape, dtype, offset in arrays]
    return inputs, output, {"arrays": arrays}


def serve(model: Any, inputs: Any, output: Any, answers: int) -> None:
    """One run a request, until there are no more."""
    requests = select.poll()
    requests.register(0, select.POLLIN)
    while wait_for_request(requests):
        try:
            output[...] = model.run(inputs)[0]
            answer = OK
        except Exception as error:
            answer = describe(error).encode()
        os.write(answers, answer)


def wait_for_request(requests: Any) -> bytes:
    """The next request, nothing at the end of input; awake for a moment, then asleep."""
    end = time.perf_counter() + AWAKE_S
    while not requests.poll(0) and time.perf_counter() < end:
        pass
    return os.read(0, 1)


def describe(error: Exception) -> str:
    """An error in one line."""
    return traceback.format_exception_only(type(error), error)[-1].strip()[:LONGEST]


if __name__ == "__main__":
    main()
