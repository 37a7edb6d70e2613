"""What HuBERT, WavLM and those pruned from them share: convolutions over the waveform, a transformer over frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from modules.console import UserError
from vencoder.encoder import SpeechEncoder

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # samples, of the seven convolutions: 320 together
HEAD_WIDTH = 64  # in every published network; none of HuBERT's tensors tells it


class WaveTransformer(nn.Module):
    """Base of the networks. ``width`` is the number of features that come out.

    The convolutions see one clip at a time: a norm over time in their first layer makes a clip's features depend on
    any silence beside it. The transformer, most of the work, takes the clips together under a mask.
    """

    width: int

    def forward(self, clips: list[Tensor]) -> list[Tensor]:
        """(L,) at 16 kHz each -> (N, C) each."""
        frames = [self.convolve(clip[None])[0] for clip in clips]
        lengths = [len(one) for one in frames]
        mask = None
        if min(lengths) < max(lengths):
            numbers = torch.arange(max(lengths), device=frames[0].device)
            mask = numbers < torch.tensor(lengths, device=frames[0].device)[:, None]
        features = self.transform(pad_sequence(frames, batch_first=True), mask)
        return [one[:length] for one, length in zip(features, lengths, strict=True)]

    def convolve(self, audio: Tensor) -> Tensor:
        """(B, L) -> (B, N, D)."""
        raise NotImplementedError

    def transform(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, C); ``mask`` (B, N) is true where a clip has a frame, None when all have N."""
        raise NotImplementedError


def normalise(audio: Tensor) -> Tensor:
    """(B, L) with zero mean and unit variance over the sound: ``layer_norm``, which graphs of any length lack."""
    centred = audio - audio.mean(dim=1, keepdim=True)
    return centred * (centred.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()


class WaveEncoder(SpeechEncoder):
    """Base of the encoders with such a network; a subclass says how to read it.

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
        """The network in the file, up to transformer layer ``layer``."""
        raise NotImplementedError

    def features(self, clips: list[Tensor]) -> list[Tensor]:
        return [features.T for features in self.network(clips)]


def shape_of(weights: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    """The shape of a tensor. Raises KeyError when it is missing, ValueError for another number of dimensions."""
    shape = weights[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise ValueError(f"{name} is {list(shape)}")
    return shape
