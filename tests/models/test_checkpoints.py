"""Weights load from what is whole and safe; everything else is refused with the reason."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.models.checkpoints import read_weights, write_weights
from pipeline.models.classifiers import load_cifar_resnet
from pipeline.models.registry import get_adapter
from pipeline.models.resnet import VARIANTS
from targets.errors import ArtifactError, ConfigError
from tests.models.splits import stripes


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return VARIANTS["resnet:20"].build(4, 1).state_dict()


class _Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the checkpoint ran')",)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_come_back_as_written(tmp_path, weights, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        write_weights(weights, path)
    else:
        torch.save(weights, path)
    model = load_cifar_resnet(20, path)
    assert not model.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_tied_weights_are_written_under_both_names(tmp_path):
    tied = nn.ModuleDict({"embedding": nn.Linear(4, 3, bias=False), "head": nn.Linear(4, 3, bias=False)})
    tied["head"].weight = tied["embedding"].weight
    write_weights(tied.state_dict(), tmp_path / "tied.safetensors")
    found = read_weights(tmp_path / "tied.safetensors")
    assert torch.equal(found["head.weight"], found["embedding.weight"])
    assert torch.equal(found["head.weight"], tied["head"].weight)


def test_a_training_checkpoint_is_unwrapped(tmp_path, weights):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {f"module.{name}": t for name, t in weights.items()}, "epoch": 3, "best": 0.9}, path)
    assert read_weights(path).keys() == weights.keys()


def test_half_precision_is_read_as_float32_and_batch_counters_may_be_missing(tmp_path, weights):
    path = tmp_path / "half.safetensors"
    save_file({k: v.half() for k, v in weights.items() if not k.endswith("num_batches_tracked")}, path)
    model = load_cifar_resnet(20, path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.allclose(model.get_parameter("conv1.weight"), weights["conv1.weight"], atol=1e-3)


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pt", "."])
def test_a_missing_file_is_a_configuration_error(tmp_path, name):
    with pytest.raises(ConfigError, match="No weights at"):
        read_weights(tmp_path / name)


def test_an_unknown_kind_of_file_is_a_configuration_error(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"HDF")
    with pytest.raises(ConfigError, match=r"use \.safetensors, \.pt or \.pth"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated"])
def test_a_damaged_file_is_an_artifact_error(tmp_path, weights, suffix, damage):
    path = tmp_path / f"damaged{suffix}"
    write_weights(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    content = {"empty": b"", "garbage": b"hello world" * 100, "truncated": path.read_bytes()[:-1000]}[damage]
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a whole") as caught:
        read_weights(path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("container", ["module", "plain pickle", "in a dictionary"])
def test_pickled_code_is_refused_and_not_run(tmp_path, container):
    path = tmp_path / "hostile.pt"
    if container == "module":
        torch.save(VARIANTS["resnet:20"].build(4, 1), path)
    elif container == "plain pickle":
        path.write_bytes(pickle.dumps(_Hostile()))
    else:
        torch.save({"state_dict": _Hostile()}, path)
    with pytest.raises(ArtifactError, match="pickled Python objects"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 1}, {}, torch.ones(3)])
def test_a_file_without_named_tensors_is_an_artifact_error(tmp_path, content):
    path = tmp_path / "list.pt"
    torch.save(content, path)
    with pytest.raises(ArtifactError, match="no named tensors"):
        read_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, weights, value):
    broken = {name: tensor.clone() for name, tensor in weights.items()}
    broken["layer2.1.conv1.weight"][0, 0, 0, 0] = value
    write_weights(broken, tmp_path / "nan.safetensors")
    with pytest.raises(ArtifactError, match=r"layer2\.1\.conv1\.weight holds NaN or infinite"):
        read_weights(tmp_path / "nan.safetensors")


def test_another_architecture_is_named_with_what_differs(tmp_path, weights):
    path = tmp_path / "resnet20.safetensors"
    write_weights(weights, path)
    with pytest.raises(ArtifactError, match=r"60 missing \(layer1\.3\.conv1\.weight.*fit --model resnet:20"):
        load_cifar_resnet(32, path)
    with pytest.raises(
        ArtifactError, match=r"38 unexpected \(layer.*of another shape \(conv1\.weight.*fit --model resnet:20"
    ):
        get_adapter("resnet:18").load(path, stripes(16))


def test_weights_of_no_known_architecture_are_an_artifact_error(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.ones(3), "other.weight": torch.ones(2, 2)}, path)
    with pytest.raises(ArtifactError, match=r"1 unexpected \(other\.weight\).*Give --model the architecture"):
        load_cifar_resnet(20, path)


def test_weights_that_do_not_go_with_the_data_are_a_configuration_error(tmp_path, weights):
    path = tmp_path / "resnet20.safetensors"
    write_weights(weights, path)
    adapter = get_adapter("resnet:20")
    with pytest.raises(ConfigError, match="knows 4 classes, the data 'stripes' has 3"):
        adapter.load(path, stripes(16, classes=3))
    with pytest.raises(ConfigError, match="inputs of 1 channels, the data 'stripes' has 3"):
        adapter.load(path, stripes(16, channels=3))
    assert adapter.load(path, stripes(16)) is not None


def test_a_model_that_is_not_embedded_needs_weights():
    with pytest.raises(ConfigError, match=r"resnet:20 needs trained weights.*--model resnet:digits"):
        get_adapter("resnet:20").load(None, stripes(16))


def test_there_is_no_such_depth(tmp_path):
    with pytest.raises(ConfigError, match="20, 32, 44, 56 and 110"):
        load_cifar_resnet(50, tmp_path / "any.safetensors")


def test_writing_leaves_nothing_behind_when_it_fails(tmp_path, weights):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_weights(weights, tmp_path / "file" / "weights.safetensors")
    write_weights(weights, tmp_path / "new" / "weights.safetensors")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.safetensors"]
