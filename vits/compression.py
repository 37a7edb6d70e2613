"""Release checkpoints: a generator without the weights that only training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.config import Config
from modules.console import UserError, option
from modules.training.checkpoint import load_weights
from vits.generator_file import read_generator, refuse_to_overwrite, write_generator
from vits.synthesizer import Synthesizer

TRAINING_PART = "enc_q"  # the posterior encoder, which needs the spectrogram of the target


def compress(source: str | Path, config: Config, target: str | Path, *, half: bool = False) -> None:
    """Write to ``target`` the weights of the generator ``source`` that conversion needs, optionally in half precision.

    Raises UserError when the source is no generator, does not fit the config, or is compressed already.
    """
    refuse_to_overwrite(target, source)
    weights = read_generator(source)["model"]
    kept = {name: tensor for name, tensor in weights.items() if TRAINING_PART not in name}
    is_half = all(tensor.dtype == torch.float16 for tensor in kept.values())
    if len(kept) == len(weights) and (is_half or not half):
        cure = "" if is_half else f"; with {option('half', True)} it becomes smaller still"
        raise UserError(f"{source} is compressed already: it holds nothing that only training needs{cure}")
    optimizer = _fresh_optimizer(kept, config, source)
    if half:
        kept = {name: _halved(tensor, name, source) for name, tensor in kept.items()}
    write_generator(target, kept, optimizer=optimizer)


def refuse_compressed(weights: dict[str, Tensor], path: Path) -> None:
    """Raise UserError when a generator ``G_<step>.pth`` lacks what its training needs to go on."""
    if not any(name.startswith(f"{TRAINING_PART}.") for name in weights):
        raise UserError(
            f"{path} is compressed for conversion: what only training needs ({TRAINING_PART}) is not in it. Put the "
            f"whole {path.name} back, or train under another {option('model')}, with it as the base model G_0.pth and "
            "its discriminator as D_0.pth"
        )


def release_path(source: str | Path, *, half: bool = False) -> Path:
    """Return the default path of a release: ``G_800.pth`` -> ``G_800_release.pth``, or ``G_800_release_half.pth``."""
    source = Path(source)
    suffix = source.suffix if source.suffix in (".pth", ".pt") else ".pth"
    return source.with_name(f"{source.stem}_release{'_half' if half else ''}{suffix}")


def _fresh_optimizer(kept: dict[str, Tensor], config: Config, source: str | Path) -> dict[str, Any]:
    """Return the initial state of an optimizer for the network of ``config``.

    Raises UserError if ``kept`` does not fit the network.
    """
    network, train = Synthesizer(config.model, config.data.filter_length // 2 + 1), config.train
    optimizer = torch.optim.AdamW(network.parameters(), train.learning_rate, tuple(train.betas), train.eps)
    del network.enc_q
    load_weights(network, kept, source)
    return optimizer.state_dict()


def _halved(tensor: Tensor, name: str, source: str | Path) -> Tensor:
    half = tensor.half()
    if not half.isfinite().all():
        without = f"compress it without {option('half', True)}"
        raise UserError(f"{source}: {name} holds numbers beyond half precision; {without}")
    return half
