"""DeepSparse in its own environment, for tests."""

import os
import subprocess
import textwrap
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SCRIPT = textwrap.dedent("""
    import sys
    import numpy as np
    from deepsparse import Engine
    model, folder, batch_size = sys.argv[1:]
    engine = Engine(model, batch_size=int(batch_size), num_cores=1)
    np.save(folder + "/outputs.npy", engine.run([np.load(folder + "/inputs.npy")])[0])
    print("fraction", engine.fraction_of_supported_ops)
""")


def fraction_and_outputs(model: Path, inputs: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
    """The share of an ONNX file that the engine runs in its own kernels, and the outputs of one batch."""
    environments = pytest.importorskip("targets.environments")
    interpreter = environments.installed("deepsparse")
    if interpreter is None:
        pytest.skip("DeepSparse is not installed")
    folder = model.parent
    np.save(folder / "inputs.npy", inputs)
    quiet = {**os.environ, "NM_DISABLE_ANALYTICS": "1", "NM_LOGGING_LEVEL": "error"}
    command = [interpreter, "-c", SCRIPT, model, folder, str(len(inputs))]
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=True)
    return float(done.stdout.split("fraction")[1]), np.load(folder / "outputs.npy")
