"""The networks say what transformers says, whatever is padded, and their deployed forms say the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from pipeline.models.bert import (
    MASKED,
    TENSORS,
    Deployed,
    QuestionNetwork,
    SentenceNetwork,
    TextNetwork,
    layer_names,
)
from pipeline.models.pretrained import find_pretrained
from tests.pretrained import KINDS, save_model

LENGTH = 12


def _tokens(kinds: int = 3, lengths=(7, 3, 5), seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    tokens = np.zeros((len(lengths), 3, LENGTH), np.int64)
    for row, length in zip(tokens, lengths, strict=True):
        row[0, :length] = rng.integers(4, 80, length)
        row[1, :length] = 1
        row[2, length // 2 : length] = 1
    return torch.from_numpy(tokens[:, :kinds])


def _theirs(model: nn.Module, tokens: torch.Tensor):
    with torch.no_grad():
        return model.eval()(**dict(zip(TENSORS, tokens.unbind(1), strict=False)))


def _run(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(*inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_question_networks_say_what_transformers_says(tmp_path, kind):
    found = find_pretrained(save_model(tmp_path, "AutoModelForQuestionAnswering", kind))
    network = QuestionNetwork(found.model("AutoModelForQuestionAnswering"), found.first_position)
    tokens = _tokens(len(found.tensors))
    theirs = _theirs(AutoModelForQuestionAnswering.from_pretrained(tmp_path), tokens)
    expected, real = torch.stack([theirs.start_logits, theirs.end_logits], -1), tokens[:, 1].bool()
    ours, deployed = _run(network, tokens), _run(Deployed(network), *tokens.unbind(1))
    assert ours.shape == deployed.shape == (3, LENGTH, 2)
    assert torch.allclose(ours[real], expected[real], atol=1e-5)
    assert torch.allclose(deployed[real], expected[real], atol=1e-5)
    assert (ours[~real] == MASKED).all()


@pytest.mark.parametrize("kind", KINDS)
def test_text_networks_say_what_transformers_says(tmp_path, kind):
    found = find_pretrained(save_model(tmp_path, "AutoModelForSequenceClassification", kind, num_labels=3))
    network = TextNetwork(found.model("AutoModelForSequenceClassification"), found.first_position)
    tokens = _tokens(len(found.tensors))
    expected = _theirs(AutoModelForSequenceClassification.from_pretrained(tmp_path), tokens).logits
    assert torch.allclose(_run(network, tokens), expected, atol=1e-5)
    assert torch.allclose(_run(Deployed(network), *tokens.unbind(1)), expected, atol=1e-5)
    assert expected.std(dim=0).min() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_pooled_over_real_tokens_and_deployed_at_length_1(tmp_path, kind, pooling):
    found = find_pretrained(save_model(tmp_path, "AutoModel", kind))
    network = SentenceNetwork(found.model("AutoModel"), found.first_position, pooling)
    tokens = _tokens(len(found.tensors))
    hidden = _theirs(AutoModel.from_pretrained(tmp_path), tokens).last_hidden_state
    lengths = [int(row.sum()) for row in tokens[:, 1]]
    pooled = [row[:n].mean(0) if pooling == "mean" else row[0] for row, n in zip(hidden, lengths, strict=True)]
    assert torch.allclose(_run(network, tokens), torch.stack(pooled), atol=1e-5)
    normalised = functional.normalize(torch.stack(pooled), dim=1)
    assert torch.allclose(_run(Deployed(network), *tokens.unbind(1)), normalised, atol=1e-5)


def test_only_positions_up_to_the_longest_text_are_computed(tmp_path):
    found = find_pretrained(save_model(tmp_path))
    network = SentenceNetwork(found.model("AutoModel"), found.first_position, "mean")
    seen = []
    network.model.encoder.layer[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    tokens = _tokens()
    _run(network, tokens)
    _run(network, tokens[1:2])
    _run(Deployed(network), *tokens.unbind(1))
    assert seen == [7, 3, LENGTH]
    assert network.real_positions(tokens).sum(dim=1).tolist() == [7, 3, 5]
    assert network.real_positions(tokens).shape == (3, 7)
    assert network.real_positions(torch.zeros(1, 3, LENGTH, dtype=torch.int64)).shape == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_found_and_give_tensors(tmp_path, kind):
    found = find_pretrained(save_model(tmp_path, kind=kind))
    network = SentenceNetwork(found.model("AutoModel"), found.first_position, "mean")
    names = layer_names(network)
    outputs = []
    assert len(names) == 2
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda _m, _i, output: outputs.append(output.shape))
    _run(network, _tokens(len(found.tensors)))
    assert outputs == [(3, 7, 16)] * 2
