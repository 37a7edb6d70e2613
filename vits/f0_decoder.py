"""The synthesizer's representations of F0 (coarse bins, log scale, normalised contour), and the F0 predictor."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers.attention import CausalEncoder
from modules.layers.convolution import Conv1d

COARSE_BINS = 256
F0_MIN, F0_MAX = 50.0, 1100.0  # Hz, the ends of the coarse scale


def f0_to_coarse(f0: Tensor) -> Tensor:
    """Map Hz to bins 1 to 255 of a mel scale, int64, any shape; unvoiced (0 Hz) and everything up to 50 Hz is bin 1.

    From about 1103 Hz up the bin is 0, not 255, because published models were trained with bin 0 for very high F0.
    """
    low, high = (1127 * math.log(1 + f / 700) for f in (F0_MIN, F0_MAX))
    mel = 1127 * torch.log(1 + f0.float() / 700)
    scale = (COARSE_BINS - 2) / (high - low)
    bins = torch.where(mel > 0, mel * scale - (low * scale - 1), mel).round().long().clamp(min=1)
    return bins.masked_fill(bins >= COARSE_BINS, 0)


def f0_to_lf0(f0: Tensor) -> Tensor:
    """Map Hz to the log scale that the network predicts: 0 at 0 Hz and about 2 at 1000 Hz."""
    return 2595 * torch.log10(1 + f0.float() / 700) / 500


def lf0_to_f0(lf0: Tensor) -> Tensor:
    """Map the log scale to Hz, as the inverse of f0_to_lf0."""
    return 700 * (10 ** (lf0.float() * 500 / 2595) - 1)


def normalize_lf0(lf0: Tensor, mask: Tensor, uv: Tensor, random_scale: bool = False) -> Tensor:
    """Subtract from the contour its mean over voiced frames: the melody, independent of the singer's range.

    Args:
        lf0: (B, 1, T).
        mask: (B, 1, T), 1 where there is a frame.
        uv: (B, T), 1 where voiced.
        random_scale: scale each contour by a random factor from 0.8 to 1.2, for training.
    """
    uv = uv[:, None].float()
    voiced = uv.sum(dim=2, keepdim=True)
    mean = (lf0 * uv).sum(dim=2, keepdim=True) / torch.where(voiced == 0, 9999.0, voiced)
    contour = (lf0 - mean) * mask
    if not random_scale:
        return contour
    return contour * torch.empty(len(lf0), 1, 1, device=lf0.device).uniform_(0.8, 1.2)


class F0Decoder(nn.Module):
    """Predicts a speaker's log F0 from content and the normalised contour of the source."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        hidden = model.hidden_channels
        self.prenet = Conv1d(hidden, hidden, 3, padding=1)
        self.decoder = CausalEncoder(
            hidden, model.filter_channels, model.n_heads, model.n_layers, model.kernel_size, model.p_dropout
        )
        self.proj = Conv1d(hidden, 1, 1)
        self.f0_prenet = Conv1d(1, hidden, 3, padding=1)
        self.cond = Conv1d(model.gin_channels, hidden, 1)

    def forward(self, x: Tensor, norm_lf0: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """Map ``x`` (B, hidden, T), ``norm_lf0`` (B, 1, T) and ``g`` (B, G, 1) or (B, G, T) to log F0 (B, 1, T).

        The content is detached, so that the F0 loss trains only this network.
        """
        x = x.detach() + self.cond(g) + self.f0_prenet(norm_lf0.to(x.dtype))
        x = x * mask.amax(dim=0, keepdim=True)  # zero the padding beyond the longest clip, which must not affect it
        x = self.decoder(self.prenet(x) * mask, mask)
        return self.proj(x) * mask
