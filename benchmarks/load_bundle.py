"""What `load_bundle` costs over the bare runtime: ResNet-20 at batch 1 on every installed runtime.

    SPDY_DATA=... python -m benchmarks.load_bundle

One compiled network in this process, called as the runtime's own interface has it, and through the bundle. DeepSparse
once more with a process for each: its engine in its own environment, which times itself, and the bundle's. Both take
turns of many calls in random order, with some untimed calls first; the ratio is that of the medians of the same round.
"""

import json
import random
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import targets.runtimes
from benchmarks.runs import data_folder, write_result
from calibration.pictures import IMAGES, Preprocessing
from pipeline import load_bundle
from pipeline.exporting.export import export_onnx, export_openvino_ir
from pipeline.models.classifiers import load_cifar_resnet
from pipeline.releases.bundle import write_bundle
from pipeline.run_folder import write_json
from pipeline.serving.model import BundleModel
from pipeline.serving.record import IMAGE_CLASSIFICATION, ServingRecord, TensorSpec
from targets.host import available_cores, collect_host, pinned_cpus
from targets.registry import RuntimeInfo, installed_runtimes

ROUNDS, UNTIMED, TIMED = 30, 20, 100
GOAL = 1.02
SHAPE = (1, 3, 32, 32)
Turn = Callable[[int], list[float]]
"""Calls a network so many times and gives the seconds of each call."""
BARE = """
import json, os, sys, time
import numpy as np
from runtimes import deepsparse
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
model, inputs, threads, cpus = json.loads(sys.argv[1])
if cpus:
    os.sched_setaffinity(0, cpus)
x = [np.load(inputs)]
engine = deepsparse.compile(model, threads, len(x[0]))._engine
for line in sys.stdin:
    seconds = []
    for _ in range(int(line)):
        start = time.perf_counter_ns()
        engine.execute_list_out(x)
        seconds.append((time.perf_counter_ns() - start) * 1e-9)
    answers.write(json.dumps(seconds) + "\\n")
"""


def main() -> None:
    """Measure every runtime and write the result."""
    threads = available_cores()
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, threads)
        for info in installed_runtimes():
            for own_process in (False, True) if info.name == "deepsparse" else (False,):
                with load_bundle(bundle, runtime=info.name, own_process=own_process) as model, ExitStack() as stack:
                    if own_process:
                        reference = stack.enter_context(bare_deepsparse(info, bundle, x, threads))
                    else:
                        reference = bare(info, model, x)
                    found = compare(reference, calls(model, x))
                rows.append({"runtime": info.name, "version": info.version, "own_process": own_process, **found})
                print(json.dumps(rows[-1]))
    host = collect_host().to_json()
    kept = ("vendor", "model", "uarch", "isa", "physical_cores", "usable_cores")
    write_result(
        "load_bundle",
        {
            "command": "python -m benchmarks.load_bundle",
            "host": {key: host[key] for key in kept},
            "network": "ResNet-20, batch 1",
            "threads": threads,
            "goal": GOAL,
            "rows": rows,
        },
    )


def make_bundle(folder: Path, threads: int) -> Path:
    """The dense ResNet-20 as a bundle for batch 1: what its weights are does not change what loading it costs."""
    network = load_cifar_resnet(20, data_folder() / "resnet" / "resnet20_cifar10.safetensors")
    export_onnx(network, {"input": np.zeros(SHAPE, np.float32)}, folder / "model.onnx")
    export_openvino_ir(folder / "model.onnx", folder / "openvino" / "model.xml")
    record = ServingRecord(
        model="resnet:20",
        task=IMAGE_CLASSIFICATION,
        inputs=(TensorSpec("input", SHAPE, "float32"),),
        output=TensorSpec("output", (1, 10), "float32"),
        runtime="onnxruntime",
        precision="fp32",
        threads=threads,
        batch_size=1,
        preprocessing=Preprocessing("RGB", (32, 32), IMAGES.mean, IMAGES.std),
        classes=tuple(map(str, range(10))),
    )
    write_json(folder / "serving.json", record.to_json())
    write_json(folder / "certificate.json", {})
    names = ("model.onnx", "openvino/model.xml", "openvino/model.bin", "serving.json", "certificate.json")
    write_bundle(folder / "bundle", {name: folder / name for name in names}, {"status": "benchmark"})
    return folder / "bundle"


def bare(info: RuntimeInfo, model: BundleModel, x: NDArray[np.float32]) -> Turn:
    """The very network that ``model`` calls, without us."""
    engine: Any = model._engine
    if info.name == "deepsparse":
        network = engine._network
        return calls(lambda _: network.execute_list_out([x])[0], x)
    if info.name == "openvino":
        request, inputs = engine._compiled._request, [x]
        # The results' own look-up by index takes longer than all that a bundle adds.
        return calls(lambda _: next(iter(request.infer(inputs, share_inputs=True).values())), x)
    session, name = engine._compiled._session, engine._compiled._names[0]
    return calls(lambda _: session.run(None, {name: x})[0], x)


@contextmanager
def bare_deepsparse(info: RuntimeInfo, bundle: Path, x: NDArray[np.float32], threads: int) -> Iterator[Turn]:
    """A DeepSparse engine in a process of its own, which times itself."""
    with tempfile.TemporaryDirectory() as name:
        program, inputs = Path(name, "bare.pyz"), Path(name, "x.npy")
        np.save(inputs, x)
        with zipfile.ZipFile(program, "w") as archive:
            archive.writestr("__main__.py", BARE)
            for source in Path(targets.runtimes.__file__).parent.glob("*.py"):
                archive.write(source, f"runtimes/{source.name}")
        job = json.dumps([str(bundle / "model.onnx"), str(inputs), threads, pinned_cpus(threads)])
        command = [str(info.interpreter), "-I", str(program), job]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert process.stdin is not None
            requests, answers = process.stdin, process.stdout

            def turn(count: int) -> list[float]:
                requests.write(f"{count}\n")
                seconds: list[float] = json.loads(answers.readline())  # type: ignore[union-attr]
                return seconds

            yield turn
            requests.close()


def calls(call: Callable[[NDArray[np.float32]], Any], x: NDArray[np.float32]) -> Turn:
    """Times single calls in this process."""

    def turn(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            start = time.perf_counter_ns()
            call(x)
            seconds.append((time.perf_counter_ns() - start) * 1e-9)
        return seconds

    return turn


def compare(reference: Turn, bundle: Turn) -> dict[str, Any]:
    """Latencies in turns, and their ratio with the spread of its median over the rounds."""
    rng = random.Random(0)
    medians: dict[Turn, list[float]] = {reference: [], bundle: []}
    for _ in range(ROUNDS):
        for turn in rng.sample([reference, bundle], 2):
            turn(UNTIMED)
            medians[turn].append(float(np.median(turn(TIMED))))
    bare_s, bundle_s = np.array(medians[reference]), np.array(medians[bundle])
    ratios = bundle_s / bare_s
    draws = np.median(np.random.default_rng(0).choice(ratios, (2000, ROUNDS)), axis=1)
    return {
        "bare_s": float(np.median(bare_s)),
        "bundle_s": float(np.median(bundle_s)),
        "added_s": float(np.median(bundle_s - bare_s)),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(np.quantile(draws, 0.025)),
        "ratio_high": float(np.quantile(draws, 0.975)),
        "rounds": ratios.round(5).tolist(),
    }


if __name__ == "__main__":
    main()
