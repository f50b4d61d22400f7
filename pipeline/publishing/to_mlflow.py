"""Publishing to MLflow's registry: a version whose pyfunc loads the bundle with its runtime and predicts."""

import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.run_folder import read_json
from pipeline.serving.record import ServingRecord
from pipeline.serving.record import TensorSpec as ServedTensor
from pipeline.tracking.mlflow_server import connect, experiment_id, explain, resolve_uri
from targets.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

LOADER = "pipeline.publishing.mlflow_loader"
MODEL = "model"
"""The model's folder among the artifacts of its run."""
TAKEN = "RESOURCE_ALREADY_EXISTS"


def publish_to_mlflow(bundle: Path, name: str, uri: str | None, forced: str | None) -> str:
    """Register a bundle as the next version of a model.

    The version appears last, when its files are there: one that failed half-way is a run marked as failed, no version.

    Args:
        bundle: a checked bundle; whether it may be published is decided before.
        name: of the registered model; made if there is none.
        uri: of the server; None leaves it to MLflow's own settings. Credentials come from its environment variables.
        forced: why a bundle without a good certificate is published all the same; a tag of the version.

    Returns:
        ``models:/NAME/VERSION``.

    Raises:
        ArtifactError: certificate or serving record is broken.
        ConfigError: the server refuses the name or the credentials, or there are credentials in the URI.
        RuntimeMissingError: MLflow is not installed, or the server does not answer as it should.
    """
    server = resolve_uri(uri)
    tags = version_tags(read_json(bundle / "certificate.json"), forced)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / MODEL
        try:
            _save(bundle, model)
            version = _register(connect(server), name, model, tags)
        except UserError:
            raise
        except Exception as error:  # MLflow passes on what its stores and requests raise
            raise explain(error, server) from error
    return f"models:/{name}/{version}"


def version_tags(certificate: Mapping[str, Any], forced: str | None) -> dict[str, str]:
    """What the certificate says, in words that a registry can be searched by."""
    accuracy = certificate["accuracy"]
    tags = {name: certificate[name] for name in ("status", "requested_speedup", "measured_speedup", "proxy")}
    tags |= {f"speedup_{name}": certificate[name] for name in ("ci_low", "ci_high")}
    tags |= {"confidence": certificate["confidence"], "speedup_over_best_dense": certificate["speedup_over_best_dense"]}
    tags |= {"accuracy_metric": accuracy["metric"], "accuracy": accuracy["compressed"]}
    tags |= {"accuracy_dense": accuracy["dense"], "accuracy_difference": accuracy["difference"]}
    tags |= {f"accuracy_difference_{name}": accuracy[name] for name in ("ci_low", "ci_high")}
    tags |= {"latency_s": certificate["compressed"]["latency_s"], "runtime": certificate["compressed"]["runtime"]}
    tags |= {"host": certificate["host"]["model"], "licence_note": certificate["licence_note"]}
    if forced is not None:
        tags["forced"] = forced
    return {name: str(value) for name, value in tags.items()}


def _save(bundle: Path, model: Path) -> None:
    """Write MLflow's model folder with the bundle in it."""
    from mlflow import pyfunc

    package = metadata.distribution("spdy-edge")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for an example of the input: the bundle holds golden ones
        pyfunc.save_model(
            model,
            loader_module=LOADER,
            data_path=str(bundle),
            signature=_signature(bundle),
            pip_requirements=[f"{package.name}=={package.version}"],
        )


def _signature(bundle: Path) -> "ModelSignature":
    """Shapes and types of inputs and output, any number of samples."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    record = ServingRecord.load(bundle)

    def spec(tensor: ServedTensor, name: str | None = None) -> TensorSpec:
        return TensorSpec(np.dtype(tensor.dtype), (-1, *tensor.shape[1:]), name)

    named = len(record.inputs) > 1
    inputs = Schema([spec(tensor, tensor.name if named else None) for tensor in record.inputs])
    return ModelSignature(inputs, Schema([spec(record.output)]))


def _register(client: "MlflowClient", name: str, model: Path, tags: Mapping[str, str]) -> str:
    """Upload the folder into a run of its own, and make it a version."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != TAKEN:
            raise
    run = client.create_run(experiment_id(client), tags=dict(tags), run_name=f"publish {name}").info
    try:
        client.log_artifacts(run.run_id, str(model), MODEL)
        version = client.create_model_version(name, f"{run.artifact_uri}/{MODEL}", run.run_id, tags=dict(tags))
    except BaseException:
        client.set_terminated(run.run_id, "FAILED")
        raise
    client.set_terminated(run.run_id)
    return str(version.version)
