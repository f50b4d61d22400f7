"""Layer-wise correction: every layer makes up for what the layers before it have lost, in closed form."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from calibration.batch_norm import batch_statistics
from calibration.paired import PairedMoments, paired_moments
from pipeline.compression.hessians import Mask, Matrix
from pipeline.compression.solvers import least_squares

RIDGE = 0.01
"""Of the mean diagonal: how strongly weights are held to what they were, against fitting chance."""


def correct_layers(
    network: nn.Module,
    dense: nn.Module,
    names: Sequence[str],
    batches: Iterable[Tensor],
    weights: bool = True,
    progress: Callable[[int, str], None] | None = None,
) -> None:
    """Fit layer after layer to the dense layer's outputs, given the inputs that the compressed network really gives it.

    With x the layer's input in ``network`` and y in ``dense``, and S the weights that are not zero:

        minimise over ŵ_S, b̂   Σ ‖(W y + b) - (Ŵ x + b̂)‖² + λ‖Ŵ - Ŵ_before‖²

    The sequential ("asymmetric") reconstruction of Nagel et al. 2020 and of Frantar & Alistarh 2022, OBC, section 5,
    and the bias correction of Nagel et al. 2019 where only biases may change. Batch norm sees each batch's own
    statistics meanwhile, in the compressed network; re-estimate it afterwards.

    Args:
        network: compressed; changed in place, zeros stay zeros.
        dense: in eval mode; left as it is.
        names: of convolutions and linear layers in the order in which they run.
        batches: inputs [n, …]; gone through once a layer.
        weights: whether weights may change, or biases alone.
        progress: told the layers that are done and the name of the last one.
    """
    for done, name in enumerate(names, start=1):
        with batch_statistics(network):
            moments = paired_moments(network, dense.eval(), name, batches)
        _correct(network.get_submodule(name), dense.get_submodule(name), moments, weights)
        if progress:
            progress(done, name)


def _correct(layer: nn.Module, dense: nn.Module, moments: PairedMoments, weights: bool) -> None:
    weight, original = layer.get_parameter("weight"), _matrix(dense)
    has_bias = getattr(layer, "bias", None) is not None
    solved = _matrix(layer)
    if weights:
        solved = _solved(moments.centred() if has_bias else moments, original, solved, solved != 0)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(solved).view_as(weight))
    if has_bias:
        missing = _outputs(original, moments.reference_sum) - _outputs(solved, moments.own_sum)
        with torch.no_grad():
            bias = dense.get_parameter("bias").double() + torch.from_numpy(missing / moments.count)
            layer.get_parameter("bias").copy_(bias)


def _solved(moments: PairedMoments, original: Matrix, before: Matrix, kept: Mask) -> Matrix:
    """Masked least squares; equal to fitting the weights that an unmasked fit would give, under the same moments."""
    solved = np.empty_like(before)
    for rows, own, cross in zip(_groups(before, moments), moments.own, moments.cross, strict=True):
        ridge = RIDGE * (float(np.mean(np.diag(own))) or 1.0)
        held = own + ridge * np.eye(len(own))
        unmasked = np.linalg.solve(held, (original[rows] @ cross + ridge * before[rows]).T).T
        solved[rows] = least_squares(held, unmasked, kept[rows])
    return solved


def _outputs(weight: Matrix, sums: Matrix) -> Matrix:
    """[rows] sum of a layer's outputs for the sum [groups, d] of its input columns."""
    parts = np.split(weight, len(sums))
    return np.concatenate([part @ own for part, own in zip(parts, sums, strict=True)])


def _groups(weight: Matrix, moments: PairedMoments) -> list[slice]:
    share = len(weight) // len(moments.own)
    return [slice(start, start + share) for start in range(0, len(weight), share)]


def _matrix(layer: nn.Module) -> Matrix:
    matrix: Matrix = layer.get_parameter("weight").detach().flatten(1).double().numpy()
    return matrix
