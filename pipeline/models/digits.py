"""The embedded network: trained on the spot on scikit-learn's digits, then cached."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from calibration.datasets import Split, Splits
from pipeline.models.checkpoints import load_weights, read_weights, write_weights
from pipeline.models.inference import channels_last, fast_autocast, in_channels_last
from pipeline.models.resnet import Variant
from targets.errors import ConfigError, UserError
from targets.homes import cache_home

EPOCHS = 8
BATCH_SIZE = 64
PEAK_LR = 0.1
SEED = 0
RECIPE = {"version": 1, "epochs": EPOCHS, "batch_size": BATCH_SIZE, "peak_lr": PEAK_LR, "seed": SEED}
INPUT_SHAPE = (1, 8, 8)

_log = logging.getLogger(__name__)


def trained_digits_model(variant: Variant, data: Splits) -> nn.Module:
    """The network for the embedded digits in eval mode, from the cache or trained now (a quarter of a minute).

    The cache's key is a hash of the recipe, the network and the content of every training sample.

    Raises:
        ConfigError: the data is not the embedded digits.
    """
    if tuple(data.train.input_shape) != INPUT_SHAPE:
        raise ConfigError(
            f"{variant.name} is trained on the spot on the embedded digits, not on '{data.name}': "
            "leave --data out, or give --model and --weights that go with the data."
        )
    model = _untrained(variant, data.train)
    path = cache_home() / "models" / f"{variant.name.replace(':', '-')}-{_key(variant, data.train)}.safetensors"
    if path.exists():
        try:
            load_weights(model, read_weights(path), str(path))
            return model.eval()
        except UserError as error:
            _log.warning("The cached network is broken and is trained again: %s", error)
    _log.info("Training %s on the embedded digits (once; cached in %s).", variant.name, path.parent)
    with _one_thread():
        _train(model, data.train)
    try:
        write_weights(model.state_dict(), path)
    except OSError as error:
        _log.warning("The trained network could not be cached and will be trained again next time: %s", error)
    return model


def _untrained(variant: Variant, train: Split) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return variant.build(len(train.classes), train.input_shape[0])


def _key(variant: Variant, train: Split) -> str:
    content = hashlib.sha256()
    content.update(json.dumps({**RECIPE, "model": variant.name, "torch": torch.__version__}, sort_keys=True).encode())
    content.update(np.asarray(train.labels, np.int64).tobytes())
    content.update(train.inputs(np.arange(len(train))).tobytes())
    return content.hexdigest()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: as fast for so small a network, many times faster beside other work, and the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(model: nn.Module, train: Split) -> None:
    """SGD with one cycle of the learning rate and smoothed labels; leaves ``model`` in eval mode."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), PEAK_LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = EPOCHS * (len(train) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=steps, pct_start=0.25)
    with channels_last(model):
        for inputs, labels in _batches(train, steps):
            with fast_autocast():
                loss = functional.cross_entropy(model(in_channels_last(inputs)), labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()


def _batches(train: Split, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Augmented batches, the training split in a new order each time through."""
    rng = np.random.default_rng(SEED)
    order = np.empty(0, np.int64)
    for _ in range(steps):
        if len(order) < BATCH_SIZE:
            order = rng.permutation(len(train))
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = train.batch(rows, rng)
        yield torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
