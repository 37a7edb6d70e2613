"""The discriminators: one on the waveform itself, the others on the waveform folded by a period.

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


class _Discriminator(nn.Module):
    """Convolutions, each followed by a leaky ReLU, and a last one that outputs the scores."""

    convs: nn.ModuleList
    conv_post: nn.Module

    def _feature_maps(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x)
        return [*features, self.conv_post(x)]


class ScaleDiscriminator(_Discriminator):
    """Scores the waveform with wide strided convolutions, most of them grouped by four channels."""

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
        """Map ``y`` (B, 1, L) to seven feature maps (B, C, length), the last with ceil(L / 256) scores."""
        return self._feature_maps(y)


class PeriodDiscriminator(_Discriminator):
    """Scores every ``period``-th sample together, with convolutions along the columns of the folded waveform."""

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
        """Map ``y`` (B, 1, L) to six feature maps (B, C, rows, period), the last with the scores."""
        y = F.pad(y, (0, -y.shape[2] % self.period), "reflect").unflatten(2, (-1, self.period))
        return self._feature_maps(y)


class MultiPeriodDiscriminator(nn.Module):
    """A scale discriminator and a period discriminator for each period.

    Args:
        use_spectral_norm: in place of weight norm.
        periods: in samples; primes have little overlap.
        width: factor on all channel counts; published models have 1.
    """

    def __init__(
        self, use_spectral_norm: bool = False, periods: Sequence[int] = (2, 3, 5, 7, 11), width: float = 1.0
    ):
        super().__init__()
        self.use_spectral_norm = use_spectral_norm
        self.discriminators = nn.ModuleList([ScaleDiscriminator(use_spectral_norm, width)])
        self.discriminators.extend(PeriodDiscriminator(period, use_spectral_norm, width) for period in periods)

    def forward(self, y: Tensor) -> list[list[Tensor]]:
        """Map ``y`` (B, 1, L) to each discriminator's feature maps; the last map has the scores, see scores_of."""
        return [discriminator(y) for discriminator in self.discriminators]

    def scores(self, real: Tensor, fake: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return each discriminator's scores of ``real`` and ``fake``, both (B, 1, L), in one pass if possible.

        With spectral norm there are two passes, because each pass advances its estimate.
        """
        if self.use_spectral_norm:
            return scores_of(self(real)), scores_of(self(fake))
        scores = scores_of(self(torch.cat([real, fake])))
        return [score[: len(real)] for score in scores], [score[len(real) :] for score in scores]


def scores_of(maps: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return each discriminator's scores (B, n), a view of its last feature map.

    This is not part of ``forward``, because PyTorch 2.11's compiler loses the gradient of such a view.
    """
    return [features[-1].flatten(1) for features in maps]
