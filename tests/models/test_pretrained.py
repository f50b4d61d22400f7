"""Folders in Hugging Face's layout are checked before anything of them is used."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from pipeline.models.pretrained import find_pretrained
from targets.errors import ArtifactError, ConfigError
from tests.pretrained import KINDS, WORDS, save_model, save_tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_its_model_as_it_was_saved(tmp_path, kind, capfd):
    found = find_pretrained(save_model(tmp_path, kind=kind))
    model = found.model("AutoModel")
    saved = AutoModel.from_pretrained(tmp_path)
    assert not model.training
    assert model.config._attn_implementation == "eager"
    capfd.readouterr()
    find_pretrained(tmp_path).model("AutoModel")
    assert found.tokenizer.is_fast
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert found.tensors == ("input_ids", "attention_mask", "token_type_ids")[: 3 if kind in ("bert", "electra") else 2]


def test_lengths_are_those_that_the_model_has_positions_for(tmp_path):
    found = find_pretrained(save_model(tmp_path, positions=64))
    assert (found.length(None, 384), found.length(None, 32), found.length(64, 32)) == (64, 32, 64)
    for wrong in (65, 3, 0):
        with pytest.raises(ConfigError, match=f"--input-size {wrong} .* takes 4 to 64"):
            found.length(wrong, 32)
    offset = find_pretrained(save_model(tmp_path / "roberta", kind="roberta", positions=64))
    assert offset.length(None, 384) == 63  # the first position is padding's


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    save_model(tmp_path)
    save_tokenizer(tmp_path, (*WORDS, "owl"))
    with pytest.raises(ConfigError, match="the tokenizer has 102 tokens, the model knows 101: they do not belong"):
        _ = find_pretrained(tmp_path).tokenizer
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match="no tokenizer that loads"):
        _ = find_pretrained(tmp_path).tokenizer


def test_pickled_weights_are_never_read(tmp_path):
    save_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        file.write(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(ArtifactError, match="could run code when loaded and are refused"):
        find_pretrained(tmp_path).model("AutoModel")
    assert not (tmp_path / "ran").exists()


def test_weights_without_the_tasks_head_are_refused(tmp_path):
    save_model(tmp_path)
    with pytest.raises(ArtifactError, match=r"lack qa_outputs\.bias, qa_outputs\.weight.*not trained for the task"):
        find_pretrained(tmp_path).model("AutoModelForQuestionAnswering")


def test_broken_weights_are_refused(tmp_path):
    save_model(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="do not load"):
        find_pretrained(tmp_path).model("AutoModel")
    model = AutoModel.from_config(find_pretrained(tmp_path).config)
    model.encoder.layer[1].output.dense.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"encoder\.layer\.1\.output\.dense\.weight holds NaN"):
        find_pretrained(tmp_path).model("AutoModel")


def test_other_families_and_broken_configurations_are_refused(tmp_path):
    save_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with pytest.raises(ConfigError, match="type 'gpt2'; there are: bert, distilbert"):
        _ = find_pretrained(tmp_path).config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"config\.json cannot be read"):
        _ = find_pretrained(tmp_path).config


def test_without_a_folder_the_hubs_name_is_looked_up(tmp_path, monkeypatch):
    cached = tmp_path / "models--someone--small"
    save_model(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find_pretrained(Path("someone/small")).folder == cached / "snapshots" / "abc"


def test_what_is_nowhere_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="need trained weights"):
        find_pretrained(None)
    for wrong in (tmp_path, tmp_path / "absent", Path("a/b/c")):
        with pytest.raises(ConfigError, match=r"has no config\.json"):
            find_pretrained(wrong)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="cannot be fetched"):
        find_pretrained(Path("nobody-here/nothing-there"))
