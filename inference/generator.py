"""The trained synthesizer, as conversion needs it."""

from __future__ import annotations

from pathlib import Path

from modules.checkpoint import load_checkpoint, load_weights
from modules.config import Config
from modules.console import UserError
from vits.synthesizer import Synthesizer


def load_generator(path: str | Path, config: Config) -> Synthesizer:
    """The network with its weights folded, in float32, without the posterior encoder, which only training needs.

    Raises UserError when the file is unreadable, no generator's, or of other sizes than the config's.
    """
    network = Synthesizer(
        config.model,
        spec_channels=config.data.filter_length // 2 + 1,
        segment_frames=config.train.segment_size // config.data.hop_length,
    )
    del network.enc_q
    weights = load_checkpoint(path).get("model")
    if not isinstance(weights, dict):
        raise UserError(f"{path} holds no 'model'; a generator's checkpoint (G_*.pth) is needed")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("enc_q.")}
    load_weights(network, weights, path)
    network.fold_weight_norm()
    return network.eval()
