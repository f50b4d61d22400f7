"""Untrained models of the BERT family, small enough for tests, in Hugging Face's layout."""

import string
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("the", "a", "quick", "brown", "fox", "dog", "sees", "lazy", "who", "what", "jumps", "over", "good", "bad")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
KINDS = {
    "bert": (transformers.BertConfig, {"type_vocab_size": 2}),
    "electra": (transformers.ElectraConfig, {"type_vocab_size": 2, "embedding_size": 16}),
    "roberta": (transformers.RobertaConfig, {"type_vocab_size": 1}),
    "distilbert": (transformers.DistilBertConfig, {}),
}


def save_tokenizer(folder: Path, words: tuple[str, ...] = WORDS) -> int:
    """Write a tokenizer of words and letters in BERT's form; the number of its tokens."""
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *string.punctuation]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words, *letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def save_model(
    folder: Path, head: str = "AutoModel", kind: str = "bert", seed: int = 0, positions: int = 64, **settings: object
) -> Path:
    """Write an untrained model with its tokenizer; ``head`` is a class of transformers."""
    config_class, extra = KINDS[kind]
    tokens = save_tokenizer(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    config = config_class(
        vocab_size=tokens, max_position_embeddings=positions, pad_token_id=0, **sizes, **extra, **settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, head).from_config(config)
        for parameter in model.parameters():  # as spread as trained ones, so that outputs tell inputs apart
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder
