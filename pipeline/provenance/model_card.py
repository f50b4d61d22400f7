"""The model card: what a person reads first, in the form that Hugging Face shows (``README.md`` of the bundle)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipeline.certification.certificate import CERTIFIED
from targets.files import write_atomically

HEADLINES = {
    "certified": "The speedup is certified: its whole interval reaches what was asked for.",
    "missed": "**The speedup was missed**: the interval ends below what was asked for.",
    "inconclusive": "**The measurement is inconclusive**: its noise does not allow a statement.",
}


def write_model_card(path: Path, certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Write the card of a compressed model.

    Args:
        path: Markdown with YAML on top.
        origin: what `pipeline.provenance.record.provenance` found.
    """
    sections = (_headline, _intended_use, _speed, _accuracy, _data, _limitations, _licence, _origin)
    text = "\n\n".join(section(certificate, origin) for section in sections)
    write_atomically(path, f"---\n{_front_matter(certificate, origin).to_yaml()}\n---\n\n{text}\n".encode())


def _front_matter(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> ModelCardData:
    accuracy, data = certificate["accuracy"], origin["data"]["name"]
    result = EvalResult(
        task_type=origin["task"],
        dataset_type=data,
        dataset_name=data,
        dataset_split="test",
        metric_type=accuracy["metric"].partition("@")[0].split()[-1].lower(),
        metric_name=accuracy["metric"],
        metric_value=accuracy["compressed"],
    )
    return ModelCardData(
        model_name=_name(certificate, origin),
        pipeline_tag=origin["task"],
        library_name="onnx",
        license="other",
        license_name="see-model-card",
        tags=["onnx", "openvino", "pruned", "sparse", "cpu", "spdy"],
        eval_results=[result],
    )


def _name(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    return f"{origin['model']}, pruned for {certificate['requested_speedup']:g}x on a CPU"


def _headline(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    return f"# {_name(certificate, origin)}\n\n{HEADLINES[certificate['status']]}"


def _intended_use(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    target, shape = certificate["target"], " x ".join(map(str, origin["data"]["input_shape"]))
    return (
        "## Intended use\n\n"
        f"{origin['task'].replace('-', ' ').capitalize()}{_classes(origin)}, inputs of {shape}, "
        f"in batches of {target['batch_size']} on {target['threads']} threads of a CPU with {target['runtime']}. "
        "`model.onnx` and `openvino/model.xml` are the same network; `golden.safetensors` has one batch of inputs with "
        "the outputs to expect. It answers what the dense network was trained to answer, and nothing beyond."
    )


def _classes(origin: Mapping[str, Any]) -> str:
    return f" into {origin['data']['classes']} classes" if origin["data"]["classes"] else ""


def _speed(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:  # noqa: ARG001
    host, best = certificate["host"], certificate["best_dense"]
    confidence = f"{certificate['confidence']:.0%} interval"
    rows = [
        ("speedup over the dense network", f"{certificate['measured_speedup']:.2f}x"),
        (confidence, f"{certificate['ci_low']:.3f}x to {certificate['ci_high']:.3f}x"),
        ("asked for", f"{certificate['requested_speedup']:g}x"),
        ("latency of a batch, dense", _latency(certificate["baseline"])),
        ("latency of a batch, this model", _latency(certificate["compressed"])),
        ("fastest dense network on this host", _latency(best)),
        ("speedup over that", f"{certificate['speedup_over_best_dense']:.2f}x"),
        ("measured on", f"{host['model']} ({host['vendor']}, {host['usable_cores']} cores, {host['os']})"),
    ]
    return "## Speed\n\n| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _latency(side: Mapping[str, Any]) -> str:
    return f"{side['latency_s'] * 1e3:.3f} ms, {side.get('runtime', '')} {side.get('precision', '')}".rstrip(" ,")


def _accuracy(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    accuracy = certificate["accuracy"]
    return (
        "## Accuracy\n\n"
        f"{accuracy['metric'][:1].upper()}{accuracy['metric'][1:]} on the {accuracy['n']} samples of the test split of "
        f"{origin['data']['name']}: {accuracy['compressed']:.2%}, dense {accuracy['dense']:.2%}. The difference is "
        f"{100 * accuracy['difference']:+.2f} points, {accuracy['confidence']:.0%} interval "
        f"{100 * accuracy['ci_low']:+.2f} to {100 * accuracy['ci_high']:+.2f} (paired bootstrap over the samples)."
        + "".join(
            f" {name}: {of['compressed']:.2%}, dense {of['dense']:.2%}."
            for name, of in accuracy.get("others", {}).items()
        )
    )


def _data(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:  # noqa: ARG001
    data = origin["data"]
    return (
        "## Data\n\n"
        f"{data['name']}: {data['train_samples']} training and {data['test_samples']} test samples. "
        f"{data['calibration_samples']} training samples calibrated the compression; no test sample did."
    )


def _limitations(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:  # noqa: ARG001
    target, sparsity = certificate["target"], certificate["compressed"]["sparsity"]
    notes = [
        f"The speedup holds for the host, runtime, threads and batch size above. {sparsity:.0%} of the weights are "
        "zeros or gone; zeros pay only on a runtime that skips them.",
        "Pruning may cost rare classes and unusual inputs more than the average accuracy shows: test what matters to "
        "you. Biases of the dense network and of its data are still there.",
    ]
    if certificate["proxy"]:
        notes.insert(0, f"**Proxy**: meant for {target['vendor']}, measured on {certificate['host']['vendor']}.")
    if certificate["status"] != CERTIFIED:
        notes.insert(0, f"**Not certified**: the certificate's status is {certificate['status']}.")
    return "## Limitations\n\n" + "\n".join(f"- {note}" for note in notes)


def _licence(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:  # noqa: ARG001
    return (
        "## Licence\n\n"
        "The model has the licence of the weights and data that it was made from. Runtime "
        f"{certificate['target']['runtime']}: {certificate['licence_note']}."
    )


def _origin(certificate: Mapping[str, Any], origin: Mapping[str, Any]) -> str:  # noqa: ARG001
    return (
        "## Where it comes from\n\n"
        f"Made by spdy-edge {origin['code']['version']}. `manifest.json` has the hashes of every file, of weights, "
        "calibration data, configuration and code; `sbom.cdx.json` lists the packages; `certificate.json` has every "
        "raw sample. `pipeline verify BUNDLE` checks them."
    )
