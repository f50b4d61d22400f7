"""Loading a bundle is one line, and what comes out is what the network says."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.errors import DataError
from pipeline import load_bundle
from pipeline.serving.model import BundleModel, InputError
from targets import environments
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError
from targets.host import available_cores
from tests.serving.bundles import CLASSES, RECORD, make_bundle
from tests.targets.test_runtimes import make_weights, reference

NEEDS_DEEPSPARSE = [
    pytest.mark.deepsparse,
    pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse is not installed"),
]
RUNTIMES = [
    ("onnxruntime", False),
    ("openvino", False),
    ("openvino", True),
    pytest.param(("deepsparse", False), marks=NEEDS_DEEPSPARSE),
    pytest.param(("deepsparse", True), marks=NEEDS_DEEPSPARSE),
]
"""Runtimes, in this process and in one of their own."""


def samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module", params=RUNTIMES)
def model(request: pytest.FixtureRequest, bundle: Path) -> Iterator[BundleModel]:
    runtime, own_process = request.param
    with load_bundle(bundle, runtime=runtime, own_process=own_process) as opened:
        assert opened.runtime == runtime
        yield opened


@pytest.fixture
def local(bundle: Path) -> Iterator[BundleModel]:
    with load_bundle(bundle) as opened:
        yield opened


@pytest.mark.parametrize("count", [1, 7, 8, 9, 24])
def test_outputs_are_the_networks_for_any_number_of_samples(model: BundleModel, count: int) -> None:
    x = samples(count)
    outputs = model(x)
    assert outputs.shape == (count, 10)
    np.testing.assert_allclose(outputs, reference(make_weights(), x), atol=1e-4)


def test_inputs_may_lie_in_memory_in_any_order(model: BundleModel) -> None:
    x = samples(16)[::2, :, ::-1]
    np.testing.assert_allclose(model(x), reference(make_weights(), np.ascontiguousarray(x)), atol=1e-4)


def test_outputs_stay_as_they_are_when_more_is_run(model: BundleModel) -> None:
    first = model(samples(8))
    kept = first.copy()
    model(samples(8, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_many_threads_get_each_their_own_outputs(model: BundleModel) -> None:
    inputs = [samples(count, seed) for seed, count in enumerate([8, 3, 8, 17] * 10)]
    expected = [reference(make_weights(), x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        for outputs, wanted in zip(pool.map(model, inputs), expected, strict=True):
            np.testing.assert_allclose(outputs, wanted, atol=1e-4)


def test_no_torch_is_imported(bundle: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pipeline import load_bundle\n"
        "model = load_bundle(sys.argv[1])\n"
        "print(model(np.zeros((2, 3, 16, 16), np.float32)).shape)\n"
        "print(model.predict(np.zeros((5, 5, 3), np.uint8))[0].name)\n"
        "heavy = {'torch', 'onnx', 'matplotlib', 'pandas', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 10)\n")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([[1.0]], "list.*numpy array of float32"),
        (samples(1)[0], r"one sample.*inputs\[None\]"),
        (samples(0), "n at least 1"),
        (samples(2)[:, :2], r"\(2, 2, 16, 16\).*float32 \[n, 3, 16, 16\]"),
        (np.zeros(5, np.float32), r"\(5,\)"),
        (samples(2).astype(np.float64), r"are float64.*astype\(numpy.float32\)"),
        (samples(2).astype(np.uint8), "are uint8.*preprocessed"),
    ],
)
def test_wrong_inputs_are_told_what_is_needed(local: BundleModel, inputs: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        local(inputs)
    with pytest.raises(ValueError, match=words):  # what numpy's users catch
        local(inputs)


def test_a_closed_bundle_says_so_and_closing_twice_is_no_error(bundle: Path) -> None:
    model = load_bundle(bundle)
    model.close()
    model.close()
    with pytest.raises(ValueError, match="closed"):
        model(samples(1))


def test_an_image_is_preprocessed_and_named_classes_come_out(local: BundleModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    x = ((pixels / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)).transpose(2, 0, 1)[None].astype(np.float32)
    exponents = np.exp(reference(make_weights(), x)[0])
    expected = dict(zip(CLASSES, exponents / exponents.sum(), strict=True))
    for picture in (path, str(path), Image.open(path), pixels):
        scores = local.predict(picture)
        assert {score.name: score.probability for score in scores} == pytest.approx(expected, abs=1e-4)
        assert [s.probability for s in scores] == sorted((s.probability for s in scores), reverse=True)


def test_what_is_no_image_is_refused(local: BundleModel, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for picture, word in (
        (tmp_path / "absent.png", "absent"),
        (tmp_path / "text.png", "not a readable"),
        (samples(1), "array"),
    ):
        with pytest.raises(DataError, match=word):
            local.predict(picture)


def test_a_family_without_images_or_classes_says_so(tmp_path: Path) -> None:
    with load_bundle(make_bundle(tmp_path, task="object-detection", preprocessing=None)) as model:
        assert model(samples(1)).shape == (1, 10)
        with pytest.raises(InputError, match=r"no images.*float32 \[n, 3, 16, 16\]"):
            model.predict(np.zeros((16, 16, 3), np.uint8))
        with pytest.raises(InputError, match="object-detection"):
            model.classify(model(samples(1)))


def test_without_its_runtime_it_runs_on_another_one_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPDY_EDGE_DEEPSPARSE_PYTHON", raising=False)
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "empty"))
    made = make_bundle(tmp_path, runtime="deepsparse")
    with pytest.warns(RuntimeWarning, match=r"certified on deepsparse.*not installed.*openvino") as caught:
        model = load_bundle(made)
    assert caught[0].filename == __file__
    with model:
        assert model.runtime == "openvino"
        assert model.record.runtime == "deepsparse"
        np.testing.assert_allclose(model(samples(3)), reference(make_weights(), samples(3)), atol=1e-4)
    with pytest.raises(RuntimeMissingError, match="deepsparse"):
        load_bundle(made, runtime="deepsparse")


def test_the_certified_runtime_and_threads_need_no_warning(bundle: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_bundle(bundle).close()


def test_fewer_cores_than_certified_warn_and_threads_that_there_are_not_are_refused(
    tmp_path: Path, bundle: Path
) -> None:
    with pytest.warns(RuntimeWarning, match=f"1000 threads.*use {available_cores()}"):
        load_bundle(make_bundle(tmp_path, threads=1000)).close()
    for threads in (0, 1000):
        with pytest.raises(ConfigError, match=f"{threads} threads"):
            load_bundle(bundle, threads=threads)


def test_unknown_runtimes_are_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="openvino"):
        load_bundle(bundle, runtime="openvin")


def test_an_altered_bundle_is_refused(tmp_path: Path) -> None:
    made = make_bundle(tmp_path)
    (made / "model.onnx").write_bytes(b"something else")
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        load_bundle(made)


def rewrite(bundle: Path, text: str | None) -> None:
    """Give the bundle another serving record, and a manifest that goes with it."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["serving.json"]
    (bundle / "serving.json").unlink()
    if text is not None:
        import hashlib

        (bundle / "serving.json").write_text(text)
        manifest["files"]["serving.json"] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "bytes": len(text)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "pipeline report RUN --again"),
        (json.dumps(RECORD.to_json() | {"schema": 7}), "schema 7"),
        ("{", "Cannot read"),
        ('{"schema": 1}', "no serving record.*model"),
    ],
)
def test_a_bundle_without_a_serving_record_that_can_be_read(tmp_path: Path, text: str | None, words: str) -> None:
    made = make_bundle(tmp_path)
    rewrite(made, text)
    with pytest.raises(ArtifactError, match=words):
        load_bundle(made)


def test_a_network_that_the_runtime_refuses(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="fixed batch size 8, not 4"):
        load_bundle(make_bundle(tmp_path, batch_size=4))
