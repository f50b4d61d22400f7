"""Hidden costs: what makes a network slower than it looks, found and named."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from profilers.measure import Bench, Candidate
from reports import formatting
from targets.runtimes.onnx_graph import read_graph, read_weights

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MANY_ZEROS = 0.3
"""Share of zeros above which someone hoped for speed from them."""
SMALL_SHARE = 0.02
"""Of the time, below which data in another layout or type costs nothing worth a word."""
FAST_KERNELS = 0.95
"""Smallest share of a network's operations that a runtime should have fast kernels for: zeros gain nothing in others.
"""
NAMED = 6
"""Operations without fast kernels that a sentence names."""
MOVES = re.compile(r"reorder|convert|^cast|transpose|^(de)?quantizelinear", re.IGNORECASE)
"""Kinds of kernels that compute nothing that the network asks for."""
REFERENCE = re.compile(r"\(ref")
"""Kinds of kernels that compute correctly and slowly."""


def hidden_costs(bench: Bench, model: Candidate, supported_fraction: float | None) -> dict[str, str]:
    """Name → what was found in a model's file and in the runtime's counters; empty where there is nothing to name.

    Args:
        supported_fraction: of the operations, those that the runtime's own kernels compute; None if it does not tell.

    Raises:
        RuntimeMissingError: the model does not run.
        UnreachableError: the device went away.
    """
    operations_s = bench.layer_times(model).operations_s
    found = dict(_in_file(model.path, bench))
    if fallback := slow_kernels(bench.runtime.name, supported_fraction):
        found["fallback"] = fallback
    if slow := _spent(operations_s, REFERENCE, 1 - FAST_KERNELS):
        found["fallback"] = f"{bench.runtime.name} computes with its reference kernels, which are slow, for {slow}"
    if moved := _spent(operations_s, MOVES, SMALL_SHARE):
        found["reorders"] = f"layouts and types are converted for {moved}"
    return found


def slow_kernels(runtime: str, fraction: float | None, unsupported: Sequence[str] = ()) -> str | None:
    """What a network loses where its runtime has no fast kernels; None where it has them, or does not tell.

    Args:
        fraction: of the network's operations, those with fast kernels.
        unsupported: the others, with node and reason, as far as they are known.
    """
    if fraction is None or fraction >= FAST_KERNELS:
        return None
    named = f": {'; '.join(unsupported[:NAMED])}" if unsupported else ""
    return (
        f"{runtime} has fast kernels for only {formatting.percent(fraction, 0)} of the network's operations, and zeros "
        f"gain nothing in the others{named}. Write these parts of the network with operations that it has"
    )


def _in_file(path: Path, bench: Bench) -> Iterator[tuple[str, str]]:
    content = path.read_bytes()
    weights, nodes = read_weights(content), read_graph(content)
    tiny = np.finfo(np.float32).tiny
    floats = {name: w for name, w in weights.items() if w.dtype == np.float32}
    denormal = {name: int(np.count_nonzero((np.abs(w) < tiny) & (w != 0))) for name, w in floats.items()}
    if any(denormal.values()):
        worst = max(denormal, key=lambda name: denormal[name])
        yield (
            "denormal weights",
            f"{sum(denormal.values())} weights are below {tiny:.1e}, most of them in {worst}; CPUs compute with such "
            "numbers many times more slowly. Set them to zero before exporting",
        )
    if normalisations := sum(node.operation == "BatchNormalization" for node in nodes):
        yield (
            "batch norm",
            f"{normalisations} BatchNormalization nodes stand by themselves. Export in eval mode, so that they are "
            "folded into the convolutions",
        )
    int8 = {node.outputs[0]: node.inputs[0] for node in nodes if node.operation == "DequantizeLinear"}
    used = {int8.get(name, name) for node in nodes if node.operation in LAYERS for name in node.inputs[1:2]}
    used &= weights.keys()
    total = sum(weights[name].size for name in used)
    zeros = sum(int((weights[name] == 0).sum()) for name in used) / total if total else 0.0
    if zeros > MANY_ZEROS and "unstructured" not in bench.runtime.families:
        yield (
            "zeros computed",
            f"{formatting.percent(zeros)} of the weights are zeros, and {bench.runtime.name} multiplies by them all: "
            "no speed comes from them here",
        )


def _spent(operations_s: Mapping[str, float] | None, kinds: re.Pattern[str], least: float) -> str | None:
    """How much of the time goes into kinds of kernels, and into which; None where it is at most ``least`` of it."""
    total_s = sum((operations_s or {}).values())
    shares = {kind: s / total_s for kind, s in (operations_s or {}).items() if kinds.search(kind)}
    if sum(shares.values()) <= least:
        return None
    largest = sorted(shares.items(), key=lambda pair: -pair[1])
    named = ", ".join(f"{kind} {formatting.percent(share)}" for kind, share in largest)
    return f"{formatting.percent(sum(shares.values()))} of the time: {named}"
