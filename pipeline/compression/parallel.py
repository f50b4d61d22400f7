"""Rows of a layer in parallel."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch


def over_chunks(work: Callable[[torch.Tensor], None], chunks: Iterable[torch.Tensor]) -> None:
    """Call ``work`` on every chunk of row numbers, as many at a time as torch has threads, each on one thread.

    Whole chunks in parallel wait for each other once; operations that are themselves parallel wait at every step, and
    without end where other processes want the cores. Results do not depend on the number of threads either.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, chunks))
    finally:
        torch.set_num_threads(threads)
