"""What the command says and exits with, above all when something is wrong."""

import json
import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.models.resnet import VARIANTS
from pipeline.run_folder import RunFolder
from tests.command import pipeline
from tests.quick_runs import Finished, command


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of three small pictures each, in both splits."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abcdefghij":
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-20 that was never trained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(VARIANTS["resnet:20"].build(10, 3).state_dict(), path)
    return path


Cli = Callable[..., Finished]
Fails = Callable[..., None]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command, in this process and the test's own folder: its imports would take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # tables break no sentence
    return partial(command, capsys)


@pytest.fixture
def fails(cli: Cli) -> Fails:
    """The command exits with ``code``, names the words, and shows no traceback."""

    def check(code: int, *words: str, args: tuple[object, ...]) -> None:
        ended = cli(*args)
        assert ended.code == code, ended.err
        assert "Traceback" not in ended.err
        for word in words:
            assert word in ended.err

    return check


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    for code, word, arguments in (
        (2, "--spedup", ("run", "--spedup", 3)),
        (2, "intle", ("run", "--target", "intle", "--speedup", 3)),
        (5, "manifest.json", ("verify", tmp_path)),
    ):
        ended = pipeline(*arguments, cwd=tmp_path)
        assert ended.returncode == code
        assert word in ended.stderr
        assert "Traceback" not in ended.stderr


def run(*extra: object) -> tuple[object, ...]:
    return ("run", "--target", "auto", "--runtime", "onnxruntime", "--speedup", 3, "--out", "out", *extra)


@pytest.mark.parametrize("speedup", ["1", "0.5", "-2", "nan", "inf", "fast"])
def test_a_speedup_that_is_none(fails: Fails, speedup: str) -> None:
    fails(2, "--speedup", args=("run", "--speedup", speedup))


def test_no_speedup(fails: Fails) -> None:
    fails(2, "--speedup 3", args=("run",))


def test_unknown_target_option_and_runtime(fails: Fails) -> None:
    fails(2, "intle", "intel", args=("run", "--target", "intle", "--speedup", 3))
    fails(2, "--spedup", args=("run", "--spedup", 3))
    fails(2, "onnxruntim", "onnxruntime", args=("run", "--speedup", 3, "--runtime", "onnxruntim"))


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_threads_that_there_are_not(fails: Fails, threads: int) -> None:
    fails(2, "threads", args=run("--threads", threads))


def test_a_target_file_that_is_missing_or_broken(fails: Fails, tmp_path: Path) -> None:
    fails(2, "mine.toml", args=("run", "--target", "mine.toml", "--speedup", 2))
    (tmp_path / "mine.toml").write_text("vendor = ")
    fails(2, "mine.toml", args=("run", "--target", "mine.toml", "--speedup", 2))


def test_unknown_model(fails: Fails) -> None:
    fails(2, "resnet:20", args=run("--model", "resnet:21"))


def test_weights_that_are_missing_broken_or_of_another_network(
    fails: Fails, tmp_path: Path, images: Path, weights: Path
) -> None:
    broken, holes = tmp_path / "broken.safetensors", tmp_path / "nan.safetensors"
    broken.write_bytes(weights.read_bytes()[:1000])
    state = VARIANTS["resnet:20"].build(10, 3).state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, holes)
    for model, path, code, word in (
        ("resnet:20", tmp_path / "absent.safetensors", 2, "absent.safetensors"),
        ("resnet:20", broken, 5, "broken.safetensors"),
        ("resnet:56", weights, 5, "resnet:20"),
        ("resnet:20", holes, 5, "layer1.0.conv1.weight"),
    ):
        fails(code, word, args=run("--model", model, "--weights", path, "--data", images))


def test_a_calibration_set_larger_than_the_data(fails: Fails, images: Path, weights: Path) -> None:
    arguments = run("--model", "resnet:20", "--weights", weights, "--data", images, "--calibration-samples", 31)
    fails(2, "30", args=arguments)


def test_data_that_is_missing_or_broken(fails: Fails, tmp_path: Path, weights: Path) -> None:
    arguments = run("--model", "resnet:20", "--weights", weights, "--data")
    fails(2, "nowhere", args=(*arguments, "nowhere"))
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no zip at all")
    fails(2, "broken.zip", args=(*arguments, "broken.zip"))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no images")
    fails(2, "empty.zip", "train", args=(*arguments, "empty.zip"))


def test_families_that_the_runtime_lacks(fails: Fails) -> None:
    fails(2, "--families unstructured", "it has channel, int8", args=run("--families", "unstructured"))


def test_an_accuracy_floor_above_the_dense_network(fails: Fails) -> None:
    fails(2, "--min-accuracy 100", "dense network", args=run("--min-accuracy", 100))


def test_a_runtime_that_gains_nothing_stops_early_and_says_what_is_possible(cli: Cli, tmp_path: Path) -> None:
    probed = cli("probe", "--runtime", "onnxruntime", "--speedup", 3, "--out", "out")
    assert probed.code == 0
    for heading in ("50%", "70%", "80%", "90%", "95%", "99%"):
        assert heading in probed.err
    path = tmp_path / "out" / "capability.json"
    capability = json.loads(path.read_text())
    assert [runtime["name"] for runtime in capability["runtimes"]] == ["onnxruntime"]
    for row in capability["runtimes"][0]["rows"]:  # as on a CPU without vector instructions
        row["speedup"] = 1.0
    path.write_text(json.dumps(capability))
    result = cli("run", "--out", "out", "--json")
    assert result.code == 3
    assert "unreachable" in result.err
    answer = json.loads(result.out)
    assert answer["exit_code"] == 3
    assert "deepsparse" in answer["error"]
    assert (tmp_path / "out" / "report.html").exists()


def test_deepsparse_that_is_not_installed(tmp_path: Path) -> None:
    result = pipeline(
        "run",
        "--speedup",
        3,
        "--runtime",
        "deepsparse",
        cwd=tmp_path,
        environment={"SPDY_EDGE_HOME": str(tmp_path), "SPDY_EDGE_DEEPSPARSE_PYTHON": ""},
    )
    assert result.returncode == 7
    assert "pipeline runtimes install deepsparse" in result.stderr


def test_another_vendor_is_a_proxy_or_with_strict_target_an_error(cli: Cli, fails: Fails) -> None:
    from targets.host import collect_host

    other = "intel" if collect_host().vendor != "intel" else "amd"
    arguments = ("probe", "--target", other, "--runtime", "onnxruntime", "--out", "out")
    fails(7, other, args=(*arguments, "--strict-target"))
    result = cli(*arguments)
    assert result.code == 0
    assert "proxy" in result.err


def test_a_folder_of_another_configuration(cli: Cli, fails: Fails) -> None:
    probe = ("probe", "--runtime", "onnxruntime", "--out", "out")
    assert cli(*probe, "--speedup", 2).code == 0
    fails(2, "speedup 2.0 → 3.0", "--out", args=(*probe, "--speedup", 3))
    assert cli("probe", "out", "--json").code == 0
    fails(2, "already holds a run", args=("run", "--out", "out", "--no-resume"))


def test_a_probe_holds_for_other_folders_until_it_is_asked_for_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "home"))

    def probe(*arguments: object) -> tuple[str, str]:
        command = ("probe", "--runtime", "onnxruntime", "--batch-size", 1, "--out", *arguments)
        ended = cli(*command)
        assert ended.code == 0, ended.err
        return (tmp_path / str(arguments[0]) / "capability.json").read_text(), ended.err

    first, _ = probe("first")
    second, said = probe("second")
    assert second == first
    assert "probed here 0 min ago" in said
    again, said = probe("second", "--again")
    assert again != first
    assert "probed here" not in said


def test_two_jobs_on_one_run_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out").lock():
        ended = pipeline("probe", "--runtime", "onnxruntime", "--out", "out", cwd=tmp_path)
    assert ended.returncode == 2
    assert f"process {os.getpid()}" in ended.stderr
    assert "--out" in ended.stderr
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_configuration_file_with_a_typo(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("speedup = 3\nbatchsize = 4\n")
    fails(2, "batchsize", "batch_size", args=("run", "--config", "run.toml"))


def test_a_bundle_that_is_none(fails: Fails, tmp_path: Path) -> None:
    fails(5, "manifest.json", args=("verify", tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "list"),
        ("targets", "list"),
        ("runtimes", "list"),
        ("run", "--help"),
        ("--help",),
        ("search", "--help"),
    ],
)
def test_lists_and_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.code == 0
    assert len(result.out + result.err) > 200


def test_lists_are_json_where_asked_for(cli: Cli) -> None:
    models, targets = (json.loads(cli(group, "list", "--json").out) for group in ("models", "targets"))
    assert {"resnet:digits", "yolov5:n", "bert:embedding"} <= {model["name"] for model in models}
    assert all(model["data_format"] for model in models)
    assert {target["name"]: target["vendor"] for target in targets}.items() >= {"intel": "intel", "amd": "amd"}.items()


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (("spdy", "uniform", "nicest"), ("--speedup", "2,3", "--allocator", "spdy,nicest")),
        (("above 1",), ("--speedup", "2,0.5")),
        (("belong together",), ("--speedup", 2, "--backend", "dask")),
    ],
)
def test_compare_refuses_what_there_is_not(fails: Fails, words: tuple[str, ...], flags: tuple[object, ...]) -> None:
    fails(2, *words, args=("compare", "out", "--runtime", "onnxruntime", *flags))
