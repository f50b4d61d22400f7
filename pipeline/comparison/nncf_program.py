"""A program of its own around ``nncf.quantize``: dense ONNX file and calibration inputs in, quantised ONNX file out.

python -m pipeline.comparison.nncf_program DENSE.onnx INPUTS.npz OUT.onnx [--eight-bits]
"""

import sys
from pathlib import Path

import numpy as np


def quantise(dense: Path, inputs: Path, out: Path, eight_bits: bool) -> None:
    """Quantise weights and activations after training, with nncf's defaults.

    Args:
        dense: ONNX file with a fixed batch size.
        inputs: npz of the network's inputs in its order, [n, ...] each, n a multiple of the batch size.
        out: written whole or not at all.
        eight_bits: whether the CPU sums products of 8 bits without overflow (VNNI); without it, weights get 7.
    """
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    model = onnx.load(dense)
    weights = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in weights]
    size = ports[0].type.tensor_type.shape.dim[0].dim_value
    with np.load(inputs) as arrays:
        columns = {port.name: arrays[name] for port, name in zip(ports, sorted(arrays.files), strict=True)}
    starts = range(0, len(columns[ports[0].name]), size)
    batches = [{name: column[start : start + size] for name, column in columns.items()} for start in starts]
    has_attention = any(node.op_type == "Softmax" for node in model.graph.node)
    overflow_fix = OverflowFix.DISABLE if eight_bits else OverflowFix.ENABLE
    quantised = nncf.quantize(
        model,
        nncf.Dataset(batches),
        subset_size=len(batches),
        target_device=nncf.TargetDevice.CPU,
        model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=overflow_fix),
    )
    part = out.with_suffix(".part")
    onnx.save(quantised, str(part))
    part.replace(out)


if __name__ == "__main__":
    quantise(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), "--eight-bits" in sys.argv)
