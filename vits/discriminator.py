"""The judges of adversarial training: one on the waveform as it is, the others on it folded by a period.

Multi-period discriminators: HiFi-GAN, https://arxiv.org/abs/2010.05646; the scale discriminator: MelGAN,
https://arxiv.org/abs/1910.06711.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers.weight_norm import SpectralNormConv1d, SpectralNormConv2d, WeightNormConv1d, WeightNormConv2d

SLOPE = 0.1


class _Judge(nn.Module):
    """Convolutions, each followed by a leaky ReLU, and a last one whose outputs are the scores."""

    convs: nn.ModuleList
    conv_post: nn.Module

    def _listen(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x)
        return [*features, self.conv_post(x)]


class ScaleDiscriminator(_Judge):
    """Judges the waveform with wide strided convolutions, most of them grouped by four channels."""

    def __init__(self, use_spectral_norm: bool = False, width: float = 1.0):
        super().__init__()
        conv = SpectralNormConv1d if use_spectral_norm else WeightNormConv1d
        first = max(1, round(16 * width))
        channels = [first, 4 * first, 16 * first, 64 * first, 64 * first]
        self.convs = nn.ModuleList([conv(1, first, 15, padding=7)])
        for narrow, wide in zip(channels, channels[1:], strict=False):
            groups = math.gcd(narrow, max(1, narrow // 4))
            self.convs.append(conv(narrow, wide, 41, 4, groups=groups, padding=20))
        self.convs.append(conv(channels[-1], channels[-1], 5, padding=2))
        self.conv_post = conv(channels[-1], 1, 3, padding=1)

    def forward(self, y: Tensor) -> list[Tensor]:
        """``y`` (B, 1, L) -> seven feature maps (B, C, length), the last with ceil(L / 256) scores."""
        return self._listen(y)


class PeriodDiscriminator(_Judge):
    """Judges every ``period``-th sample together, by convolutions along the columns of the folded waveform."""

    def __init__(self, period: int, use_spectral_norm: bool = False, width: float = 1.0):
        super().__init__()
        self.period = period
        conv = SpectralNormConv2d if use_spectral_norm else WeightNormConv2d
        channels = [1, *(max(1, round(size * width)) for size in (32, 128, 512, 1024))]
        self.convs = nn.ModuleList(
            conv(narrow, wide, (5, 1), (3, 1), padding=(2, 0))
            for narrow, wide in zip(channels, channels[1:], strict=False)
        )
        self.convs.append(conv(channels[-1], channels[-1], (5, 1), padding=(2, 0)))
        self.conv_post = conv(channels[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, y: Tensor) -> list[Tensor]:
        """``y`` (B, 1, L) -> six feature maps (B, C, rows, period), the last with the scores."""
        y = F.pad(y, (0, -y.shape[2] % self.period), "reflect").unflatten(2, (-1, self.period))
        return self._listen(y)


class MultiPeriodDiscriminator(nn.Module):
    """A scale discriminator and one for each period.

    Args:
        use_spectral_norm: in place of weight norm.
        periods: in samples; primes hear different things.
        width: factor on all channel counts, for small trials; published models have 1.
    """

    def __init__(
        self, use_spectral_norm: bool = False, periods: Sequence[int] = (2, 3, 5, 7, 11), width: float = 1.0
    ):
        super().__init__()
        self.use_spectral_norm = use_spectral_norm
        self.discriminators = nn.ModuleList([ScaleDiscriminator(use_spectral_norm, width)])
        self.discriminators.extend(PeriodDiscriminator(period, use_spectral_norm, width) for period in periods)

    def forward(self, y: Tensor) -> list[list[Tensor]]:
        """``y`` (B, 1, L) -> each judge's feature maps; scores_of has the scores that are the last of them."""
        return [judge(y) for judge in self.discriminators]

    def scores(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Each judge's scores of both, (B, 1, L) each: in one pass where that is the same as two.

        Spectral norm advances its estimate in every pass, and so gets its two.
        """
        if self.use_spectral_norm:
            return scores_of(self(real)), scores_of(self(fake))
        scores = scores_of(self(torch.cat([real, fake])))
        return [score[: len(real)] for score in scores], [score[len(real) :] for score in scores]


def scores_of(maps: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Each judge's scores (B, n), a view of the last of its feature maps.

    Not a part of ``forward``: compiled by PyTorch 2.11, that would lose the gradient of such a view.
    """
    return [features[-1].flatten(1) for features in maps]
