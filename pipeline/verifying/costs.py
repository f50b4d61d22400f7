"""Hidden costs: what makes a network slower than it looks, found and named."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.checks import Check
from profilers.measure import Bench, Candidate
from reports import formatting
from targets.runtimes.onnx_graph import read_graph, read_weights

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MANY_ZEROS = 0.3
"""Share of zeros above which someone hoped for speed from them."""
SMALL_SHARE = 0.02
"""Of the time, below which data in another layout or type costs nothing worth a word."""
WELL_SUPPORTED = 0.99
MOVES = re.compile(r"reorder|convert|^cast|transpose", re.IGNORECASE)
"""Kinds of kernels that compute nothing that the network asks for."""


def hidden_costs(bench: Bench, model: Candidate, supported_fraction: float | None) -> list[Check]:
    """What was found in a model's file and in the runtime's counters; empty where there is nothing to name.

    Raises:
        RuntimeMissingError: the model does not run.
        UnreachableError: the device went away.
    """
    counters = bench.layer_times(model).operations_s
    found = [*_in_file(model.path, bench), *_in_runtime(bench, counters, supported_fraction)]
    return [Check(f"hidden cost: {name}", "noted", "none", text) for name, text in found]


def _in_file(path: Path, bench: Bench) -> Iterator[tuple[str, str]]:
    content = path.read_bytes()
    weights, nodes = read_weights(content), read_graph(content)
    tiny = np.finfo(np.float32).tiny
    denormal = {name: int(np.count_nonzero((np.abs(w) < tiny) & (w != 0))) for name, w in weights.items()}
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
    used = {name for node in nodes if node.operation in LAYERS for name in node.inputs[1:2]} & weights.keys()
    total = sum(weights[name].size for name in used)
    zeros = sum(int((weights[name] == 0).sum()) for name in used) / total if total else 0.0
    if zeros > MANY_ZEROS and "unstructured" not in bench.runtime.families:
        yield (
            "zeros computed",
            f"{formatting.percent(zeros)} of the weights are zeros, and {bench.runtime.name} multiplies by them all: "
            "no speed comes from them here",
        )


def _in_runtime(
    bench: Bench, operations_s: Mapping[str, float] | None, supported_fraction: float | None
) -> Iterator[tuple[str, str]]:
    if supported_fraction is not None and supported_fraction < WELL_SUPPORTED:
        yield (
            "fallback",
            f"{bench.runtime.name}'s own kernels compute {formatting.percent(supported_fraction)} of the operations; "
            "the others run in a slow fallback",
        )
    if operations_s:
        total_s = sum(operations_s.values())
        moves = {kind: s / total_s for kind, s in operations_s.items() if MOVES.search(kind)}
        if sum(moves.values()) > SMALL_SHARE:
            largest = sorted(moves.items(), key=lambda pair: -pair[1])
            named = ", ".join(f"{kind} {formatting.percent(share)}" for kind, share in largest)
            yield "reorders", f"layouts and types are converted for {formatting.percent(sum(moves.values()))}: {named}"
