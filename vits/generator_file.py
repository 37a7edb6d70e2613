"""Read a generator's checkpoint for conversion, and read and write generators for compression and mixing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modules.config import Config
from modules.console import UserError, option
from modules.training.checkpoint import load_checkpoint, load_weights, model_of, refuse_misfit, save_checkpoint
from modules.weights.weight_file import recognise
from vits.synthesizer import Synthesizer

# Entries that the original's loader requires in every checkpoint, for one without training state.
UNTRAINED = {"iteration": 0, "optimizer": None, "learning_rate": 1e-4}

ALIAS = re.compile(r"^flow\.flows\.\d+\.enc\.")  # aliases of flow.wn, if the couplings share one stack


def load_generator(path: str | Path, config: Config) -> Synthesizer:
    """Load the network in float32 with folded weight norm, without the posterior encoder, which only training needs.

    Raises UserError when the file is unreadable, no generator, or of other sizes than the config's.
    """
    weights = read_fitting_weights(path, config)
    network = _network(config)
    load_weights(network, weights, path)
    network.fold_weight_norm()
    return network.eval()


def read_fitting_weights(path: str | Path, config: Config) -> dict[str, Tensor]:
    """Read the weights for conversion: without the posterior encoder. Raises UserError as ``load_generator``."""
    weights = read_generator(path)["model"]
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("enc_q.")}
    with torch.device("meta"):  # the config may name sizes that do not fit into memory
        refuse_misfit(_network(config), weights, path)
    return weights


def _network(config: Config) -> Synthesizer:
    """Build a network of the configuration's sizes, for inference."""
    network = Synthesizer(
        config.model,
        spec_channels=config.data.filter_length // 2 + 1,
        segment_frames=config.train.segment_size // config.data.hop_length,
    )
    del network.enc_q
    return network


def read_generator(path: str | Path) -> dict[str, Any]:
    """Read a generator's checkpoint. Raises UserError if it is another kind of model, naming the kind if known."""
    checkpoint = load_checkpoint(path)
    family = recognise(model_of(checkpoint, path))
    if family != "SoVITS generator":
        looks = f"looks like {family} weights" if family else "holds none of the tensors that a generator has"
        raise UserError(f"{path} is no generator (G_<step>.pth): it {looks}")
    return checkpoint


def write_generator(path: str | Path, weights: dict[str, Tensor], **entries: Any) -> None:
    """Write a checkpoint with the four published entries; those not given describe a network without training state.

    All names of a flow's shared stack share its tensors in the file, too.
    """
    weights = {name: weights.get(ALIAS.sub("flow.wn.", name), tensor) for name, tensor in weights.items()}
    save_checkpoint(path, {**UNTRAINED, **entries, "model": weights})


def refuse_to_overwrite(target: str | Path, *sources: str | Path) -> None:
    """Raise UserError when ``target`` is one of its own source files."""
    if Path(target).resolve() in {Path(source).resolve() for source in sources}:
        raise UserError(
            f"{target} would be written over the model that it is made of; choose another name with {option('output')}"
        )
