"""Base of the speech encoders with a HuBERT or WavLM."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.console import UserError
from vencoder.encoder import SpeechEncoder
from vencoder.wave_transformer import WaveTransformer


class WaveEncoder(SpeechEncoder):
    """Base of the encoders with such a network; a subclass implements ``read``.

    Args:
        key, ssl_dim, layer: as in the table of encoders.
        path: the weight file.
        device, half: as for every encoder.

    Raises UserError when the file is of another family, incomplete or of another size.
    """

    def __init__(
        self,
        key: str,
        ssl_dim: int,
        layer: int | None,
        path: str | Path,
        device: str | torch.device = "cpu",
        half: bool = False,
    ):
        super().__init__(key, ssl_dim, device, half)
        network = self.read(path, layer)
        if network.width != ssl_dim:
            sizes = f"it gives {network.width} features a frame, not {ssl_dim}"
            raise UserError(f"{path} is not the file of the speech encoder '{key}': {sizes}; it is of another size")
        self.network = network.eval().requires_grad_(False).to(self.device)

    def read(self, path: str | Path, layer: int | None) -> WaveTransformer:
        """Read the network from the file, up to transformer layer ``layer``."""
        raise NotImplementedError

    def features(self, audio: Tensor) -> Tensor:
        return self.network(audio[None])[0].T
