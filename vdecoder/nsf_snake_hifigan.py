"""The waveform generator with anti-aliased periodic activations (Snake) in place of leaky ReLUs.

Snake: https://arxiv.org/abs/2006.08195; with a separate amplitude and oversampled by two, as here, in BigVGAN:
https://arxiv.org/abs/2206.04658.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdecoder.nsf_hifigan import NsfHifigan

TAPS = 12
MARGIN = TAPS // 2 - 1  # samples by which the filter extends past the ends
CUTOFF, HALF_WIDTH = 0.25, 0.3  # of the low-pass filter: cycles a sample at the doubled rate


class Snake(nn.Module):
    """x + sin²(x·e^alpha) / e^beta, alpha and beta learned per channel. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(x * self.alpha.exp()[:, None])
        return torch.addcmul(x, wave, wave / (self.beta.exp()[:, None] + 1e-9))


class LowPass(nn.Module):
    """The filter of both rate changes, as buffers, which follow the weights' device and precision.

    Args:
        overhang: for each of the first output samples, the sum of the filter taps that lie before the first input.
    """

    def __init__(self, overhang: Tensor):
        super().__init__()
        self.register_buffer("filter", low_pass_taps().float()[None, None])
        self.register_buffer("overhang", overhang.float(), persistent=False)

    def replicate_ends(self, out: Tensor, x: Tensor) -> Tensor:
        """Correct ``out``, filtered from zero-padded ``x``, to the result of replicate padding, in place.

        Takes a fraction of the time of padding a copy.
        """
        reached = min(len(self.overhang), out.shape[-1])
        share = self.overhang[:reached]
        out[..., :reached] += x[..., :1] * share
        out[..., -reached:] += x[..., -1:] * share.flip(0)
        return out


class Upsample(LowPass):
    """Upsample by two with replicate padding: (B, C, L) -> (B, C, 2·L)."""

    def __init__(self):
        pairs = 2 * low_pass_taps().view(-1, 2).cumsum(dim=0)
        super().__init__(pairs.flatten()[:MARGIN].flip(0))

    def forward(self, x: Tensor) -> Tensor:
        channels = int(x.shape[1])
        weight = 2 * self.filter.expand(channels, -1, -1)
        if torch.onnx.is_in_onnx_export():
            return F.conv_transpose1d(pad_ends(x, 0), weight, stride=2, padding=3 * MARGIN, groups=channels)
        out = F.conv_transpose1d(x, weight, stride=2, padding=MARGIN, groups=channels)
        return self.replicate_ends(out, x)


class Downsample(nn.Module):
    """Downsample by two with replicate padding: (B, C, 2·L) -> (B, C, L)."""

    def __init__(self):
        super().__init__()
        self.lowpass = LowPass(low_pass_taps().cumsum(dim=0)[:MARGIN:2].flip(0))

    def forward(self, x: Tensor) -> Tensor:
        channels = int(x.shape[1])
        weight = self.lowpass.filter.expand(channels, -1, -1)
        if torch.onnx.is_in_onnx_export():
            return F.conv1d(pad_ends(x, 1), weight, stride=2, groups=channels)
        out = F.conv1d(x, weight, stride=2, padding=MARGIN, groups=channels)
        return self.lowpass.replicate_ends(out, x)


def pad_ends(x: Tensor, surplus: int) -> Tensor:
    """Replicate-pad ``x`` for the filters; used in ONNX graphs, where ``replicate_ends`` would take dozens of nodes."""
    return F.pad(x, (MARGIN, MARGIN + surplus), mode="replicate")


class AntiAliasedSnake(nn.Module):
    """Snake at twice the rate, so that its overtones do not alias. (B, C, L) -> (B, C, L)."""

    reach = MARGIN

    def __init__(self, channels: int):
        super().__init__()
        self.act = Snake(channels)
        self.upsample = Upsample()
        self.downsample = Downsample()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


class NsfSnakeHifigan(NsfHifigan):
    activation = last_activation = AntiAliasedSnake


def low_pass_taps() -> Tensor:
    """Compute the taps of a Kaiser-windowed sinc: (TAPS,) float64, whose sum is 1.

    The window's shape follows from Kaiser's rule for the attenuation that this length and width allow (Oppenheim and
    Schafer, Discrete-Time Signal Processing, 7.5).
    """
    attenuation = 2.285 * MARGIN * math.pi * 4 * HALF_WIDTH + 7.95
    beta = 0.1102 * (attenuation - 8.7)  # the rule's branch for more than 50 dB
    window = torch.kaiser_window(TAPS, periodic=False, beta=beta, dtype=torch.float64)
    times = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    taps = window * torch.sinc(2 * CUTOFF * times)
    return taps / taps.sum()
