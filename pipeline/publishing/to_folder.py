"""A bundle as a folder that a model server reads."""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.releases.bundle import check_bundle
from pipeline.serving.record import NAME, ServingRecord, TensorSpec
from targets.errors import ConfigError

Layout = Literal["openvino-model-server", "triton", "plain"]
VERSION = "1"
PAPERS = ("certificate.json", NAME)
"""What goes along with the model files, for those who want to know what they serve."""
TRITON_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int64": "TYPE_INT64", "int32": "TYPE_INT32"}


def publish_to_folder(bundle: Path, path: Path, layout: Layout) -> Path:
    """Lay a bundle's files out as a server expects them, under a temporary name that is renamed once all are there.

        openvino-model-server   config.json, NAME/1/model.xml, NAME/1/model.bin
        triton                  NAME/config.pbtxt, NAME/1/model.onnx
        plain                   the bundle as it is

    NAME is the model's. With the first two go certificate and serving record, beside the version's folder.

    Args:
        path: a folder that is not there yet.

    Returns:
        ``path``.

    Raises:
        ArtifactError: a file of the bundle is altered or missing.
        ConfigError: ``path`` is there already, or cannot be written.
    """
    check_bundle(bundle)
    record = ServingRecord.load(bundle)
    if path.exists():
        raise ConfigError(f"{path} is there already and is left as it is. Name a new folder.")
    write, runtime = _LAYOUTS[layout]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        write(bundle, part, record)
        part.rename(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if runtime and runtime != record.runtime:
        warnings.warn(
            f"the bundle was certified on {record.runtime} and this server runs it on {runtime}, where the certified "
            "speedup does not hold",
            RuntimeWarning,
            stacklevel=2,
        )
    return path


def server_name(record: ServingRecord) -> str:
    """The model's name in the form that every server takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", record.model)


def _plain(bundle: Path, path: Path, record: ServingRecord) -> None:  # noqa: ARG001
    shutil.copytree(bundle, path, dirs_exist_ok=True)


def _openvino_model_server(bundle: Path, path: Path, record: ServingRecord) -> None:
    name = server_name(record)
    _copy(bundle, path / name, {f"openvino/model.{suffix}": f"model.{suffix}" for suffix in ("xml", "bin")})
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": record.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    config = {"name": name, "base_path": name, "target_device": "CPU", "plugin_config": settings}
    (path / "config.json").write_text(json.dumps({"model_config_list": [{"config": config}]}, indent=1))


def _triton(bundle: Path, path: Path, record: ServingRecord) -> None:
    name = server_name(record)
    _copy(bundle, path / name, {"model.onnx": "model.onnx"})
    (path / name / "config.pbtxt").write_text(triton_config(name, record))


def _copy(bundle: Path, model: Path, files: dict[str, str]) -> None:
    (model / VERSION).mkdir(parents=True)
    for source, target in files.items():
        shutil.copyfile(bundle / source, model / VERSION / target)
    for paper in PAPERS:
        shutil.copyfile(bundle / paper, model / paper)


def triton_config(name: str, record: ServingRecord) -> str:
    """Triton's config.pbtxt: the batch is part of the shapes, since the exported file has a fixed one."""
    return f"""\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [ {", ".join(map(_triton_tensor, record.inputs))} ]
output [ {_triton_tensor(record.output)} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{record.threads}" }} }}
"""


def _triton_tensor(spec: TensorSpec) -> str:
    return (
        f'{{ name: "{spec.name}" data_type: {TRITON_TYPES[spec.dtype]} dims: [ {", ".join(map(str, spec.shape))} ] }}'
    )


_LAYOUTS: dict[Layout, tuple[Callable[[Path, Path, ServingRecord], None], str | None]] = {
    "openvino-model-server": (_openvino_model_server, "openvino"),
    "triton": (_triton, "onnxruntime"),
    "plain": (_plain, None),
}
"""What writes a layout, and the runtime that its server uses."""
