"""A process that shares its core waits for it; one that has it alone does not."""

import os
import subprocess
import sys

import pytest

from profilers.waiting import waited_s

pytestmark = pytest.mark.timed

SPIN = "import time\nend = time.perf_counter() + 20\nwhile time.perf_counter() < end: pass"
PROGRAM = """
import os, time
from profilers.waiting import waited_s
os.sched_setaffinity(0, {CPU})
before, end = waited_s(), time.perf_counter() + 0.5
while time.perf_counter() < end:
    pass
print(waited_s() - before)
"""


def _waited(cpu: int) -> float:
    code = PROGRAM.replace("{CPU}", f"{{{cpu}}}")
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(waited_s() is None, reason="this kernel does not count how long threads wait")
def test_beside_a_busy_neighbour_a_process_waits_about_half_the_time() -> None:
    cpu = max(os.sched_getaffinity(0))
    pin = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\n"
    with subprocess.Popen([sys.executable, "-c", pin + SPIN]) as neighbour:
        try:
            assert _waited(cpu) > 0.1
        finally:
            neighbour.kill()
