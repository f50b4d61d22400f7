"""Decoded pictures, kept in memory up to a limit."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from calibration.pictures import Picture


class PictureCache:
    """Pictures by index, decoded in parallel when they are asked for.

    Args:
        decode: gives the picture of an index; called from several threads.
        limit_bytes: how much is kept at most.
    """

    def __init__(self, decode: Callable[[int], Picture], limit_bytes: int = 2**30):
        self._decode = decode
        self._kept: dict[int, Picture] = {}
        self._free_bytes = limit_bytes

    def __call__(self, indices: Sequence[int]) -> list[Picture]:
        """The pictures of ``indices``, in their order; those that there is room for are kept."""
        missing = sorted({index for index in indices if index not in self._kept})
        decoded: dict[int, Picture] = {}
        if missing:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                decoded = dict(zip(missing, pool.map(self._decode, missing), strict=True))
        pictures = [decoded[index] if index in decoded else self._kept[index] for index in indices]
        for index, picture in decoded.items():
            if picture.nbytes <= self._free_bytes:
                self._kept[index] = picture
                self._free_bytes -= picture.nbytes
        return pictures

    def one(self, index: int) -> Picture:
        """One picture, not kept; may be called from several threads at once."""
        kept = self._kept.get(index)
        return self._decode(index) if kept is None else kept
