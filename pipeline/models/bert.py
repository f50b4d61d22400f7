"""Networks of the BERT family: an encoder of transformers behind one tensor, and the forms that are deployed.

The networks leave out the padding that ends every sequence of a batch: most texts are far shorter than the sequences
that are deployed, and nothing that is computed on padding reaches an output. The deployed forms are plain graphs of
fixed shape, which compute the padding as well.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.base import Block, Cut

TENSORS = ("input_ids", "attention_mask", "token_type_ids")
"""What samples [k, length] hold and deployed networks take; some models take the first two only."""
MASKED = -1e4
"""Added to attention scores of padding, and a logit of padding: as good as minus infinity, and fits any precision."""


def layer_names(model: nn.Module) -> list[str]:
    """Names of the encoder's layers in ``model``."""
    name, layers = next((name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList))
    return [f"{name}.{index}" for index in range(len(layers))]


_HEADS = (
    (("attention.self.query", "attention.self.key", "attention.self.value"), "attention.output.dense"),
    (("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin"),
)
_NEURONS = ((("intermediate.dense",), "output.dense"), (("ffn.lin1",), "ffn.lin2"))
"""Writers and reader of a width, as BERT and DistilBERT name them."""


def encoder_widths(model: nn.Module) -> list[Block]:
    """Attention heads and hidden neurons of every encoder layer, where it is written as BERT's or DistilBERT's are."""
    modules = dict(model.named_modules())
    blocks = []
    for layer in layer_names(model):
        for kind, patterns in (("heads", _HEADS), ("neurons", _NEURONS)):
            for writers, reader in patterns:
                *before, last = (f"{layer}.{name}" for name in (*writers, reader))
                linear = modules.get(last)
                if isinstance(linear, nn.Linear):
                    heads = _head_count(modules[layer])
                    count, step = (heads, 1) if kind == "heads" else (linear.in_features, 8)
                    cut = Cut(tuple(before), last, count, linear.in_features // count, step)
                    blocks.append(Block(f"{layer}.{kind}", (cut,)))
    return blocks


def _head_count(layer: nn.Module) -> int:
    """Attention heads of an encoder layer."""
    names = ("num_attention_heads", "n_heads")
    return next(int(getattr(m, name)) for m in layer.modules() for name in names if hasattr(m, name))


class _Network(nn.Module):
    """What the networks share. Dropout is off for good: a compressed network has no capacity to spare for noise.

    Args:
        model: of transformers.
        first_position: index of a sequence's first position.
    """

    def __init__(self, model: nn.Module, first_position: int) -> None:
        super().__init__()
        self.model = model
        self.first_position = first_position
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def real_positions(self, samples: Tensor) -> Tensor:
        """[n, longest] True where a token of samples [n, k, length] is real: the positions that are computed."""
        mask = samples[:, 1].bool()
        used = mask.any(dim=0).nonzero()
        return mask[:, : int(used.max()) + 1 if len(used) else 1]

    def trimmed(self, samples: Tensor) -> tuple[Tensor, ...]:
        """The tensors [n, longest] of samples [n, k, length]."""
        return samples[:, :, : self.real_positions(samples).shape[1]].unbind(1)

    def run(self, input_ids: Tensor, attention_mask: Tensor, *types: Tensor) -> Any:
        """What the model gives for tensors [n, length]."""
        start, length = self.first_position, input_ids.shape[1]
        positions = torch.arange(start, start + length, device=input_ids.device)[None]
        if not types and getattr(self.model.config, "type_vocab_size", None):
            types = (torch.zeros_like(positions),)  # left to itself, RoBERTa gathers them from its positions
        return self.model(
            input_ids=input_ids,
            # A mask in this form is taken as it is; the usual one becomes operators that DeepSparse does not have.
            attention_mask=(1 - attention_mask[:, None, None, :].float()) * MASKED,
            position_ids=positions,
            **({"token_type_ids": types[0]} if types else {}),
        )


class QuestionNetwork(_Network):
    """Where answers begin and end: [n, k, length] to logits [n, length, 2]."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of every token, those of padding `MASKED`."""
        real = self.real_positions(tokens)
        logits = self.deployed(*self.trimmed(tokens)).masked_fill(~real[..., None], MASKED)
        return functional.pad(logits, (0, 0, 0, tokens.shape[2] - real.shape[1]), value=MASKED)

    def deployed(self, *tensors: Tensor) -> Tensor:
        """Logits [n, length, 2] of tensors [n, length], whatever is said of padding."""
        found = self.run(*tensors)
        return torch.stack([found.start_logits, found.end_logits], dim=2)


class TextNetwork(_Network):
    """Classes of texts: [n, k, length] to logits [n, classes]."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        return self.deployed(*self.trimmed(tokens))

    def deployed(self, *tensors: Tensor) -> Tensor:
        """Logits [n, classes] of tensors [n, length]."""
        return self.run(*tensors).logits  # type: ignore[no-any-return]


class SentenceNetwork(_Network):
    """Embeddings: [n, k, length] to [n, hidden], whose directions matter and whose lengths do not.

    Args:
        model: of transformers.
        first_position: index of a sequence's first position.
        pooling: ``mean`` of all real tokens, or ``cls``, the first one.
    """

    def __init__(self, model: nn.Module, first_position: int, pooling: str) -> None:
        super().__init__(model, first_position)
        self.pooling = pooling

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings as they are pooled."""
        return self._pooled(*self.trimmed(tokens)).squeeze(1)

    def deployed(self, *tensors: Tensor) -> Tensor:
        """Embeddings [n, hidden] of length 1 of tensors [n, length]."""
        pooled = self._pooled(*tensors)
        return (pooled / pooled.square().sum(2, keepdim=True).sqrt()).squeeze(1)

    def _pooled(self, *tensors: Tensor) -> Tensor:
        """[n, 1, hidden]: DeepSparse has matrix products and sums that keep their axis, and no others."""
        hidden = self.run(*tensors)[0]
        if self.pooling == "cls":
            return hidden[:, :1]  # type: ignore[no-any-return]
        weights = tensors[1][:, None, :].to(hidden.dtype)
        return torch.matmul(weights / weights.sum(2, keepdim=True), hidden)


Network = QuestionNetwork | TextNetwork | SentenceNetwork


class Deployed(nn.Module):
    """A network as users know it: tensors [n, length] by the names in `TENSORS` go in, one tensor comes out."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        """What the network's `deployed` gives."""
        return self.network.deployed(*tensors)
