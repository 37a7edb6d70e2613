"""Base of HuBERT, WavLM and their pruned versions: convolutions over the waveform, a transformer over frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.console import UserError
from vencoder.encoder import SpeechEncoder

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # strides of the seven convolutions, in samples: 320 in total
HEAD_WIDTH = 64  # in every published network; HuBERT's tensors do not give it


class WaveTransformer(nn.Module):
    """Base of the networks. ``width`` is the number of output features.

    All audio of a batch has the same length, because the norm over time in the first convolution depends on padding.
    """

    width: int

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, L) at 16 kHz to (B, N, C)."""
        return self.transform(self.convolve(audio))

    def convolve(self, audio: Tensor) -> Tensor:
        """Map (B, L) to (B, N, D)."""
        raise NotImplementedError

    def transform(self, frames: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, C)."""
        raise NotImplementedError


def normalise(audio: Tensor) -> Tensor:
    """Normalise (B, L) to zero mean and unit variance; ``layer_norm`` cannot be exported to graphs of any length."""
    centred = audio - audio.mean(dim=1, keepdim=True)
    return centred * (centred.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()


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


def shape_of(weights: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    """Return the shape of a tensor. Raises KeyError if it is missing, ValueError for other ``dimensions``."""
    shape = weights[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} is {list(shape)}")
    return shape
