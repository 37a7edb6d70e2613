"""The gated convolution stack that the posterior encoder and the flow share.

WaveNet's residual block (van den Oord et al., https://arxiv.org/abs/1609.03499), not causal, conditioned on the
speaker as in WaveGlow (https://arxiv.org/abs/1811.00002).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.normed_conv import WeightNormConv1d


class WN(nn.Module):
    """``n_layers`` gated convolutions with residual and skip paths; the skips' sum is the output.

    Args:
        channels: of input and output.
        kernel_size: odd, of the gated convolutions.
        n_layers: how many; all have dilation 1.
        gin_channels: size of the speaker's condition.
    """

    def __init__(self, channels: int, kernel_size: int, n_layers: int, gin_channels: int):
        super().__init__()
        self.in_layers = nn.ModuleList(_gated_conv(channels, kernel_size) for _ in range(n_layers))
        # The last layer has no successor, so it gives a skip and no residual.
        widths = [2 * channels] * (n_layers - 1) + [channels]
        self.res_skip_layers = nn.ModuleList(WeightNormConv1d(channels, width, 1) for width in widths)
        self.cond_layer = WeightNormConv1d(gin_channels, 2 * channels * n_layers, 1)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """``x`` (B, C, T), ``mask`` (B, 1, T), ``g`` (B, G, 1) or one condition a frame (B, G, T) -> (B, C, T)."""
        conditions = self.cond_layer(g).chunk(len(self.in_layers), dim=1)
        total = 0
        for gated, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            a, b = (gated(x) + condition).chunk(2, dim=1)
            out = res_skip(torch.tanh(a) * torch.sigmoid(b))
            if res_skip is self.res_skip_layers[-1]:
                total = total + out
            else:
                residual, skip = out.chunk(2, dim=1)
                x = (x + residual) * mask
                total = total + skip
        return total * mask


def _gated_conv(channels: int, kernel_size: int) -> nn.Module:
    """One gated layer's convolution: channels -> 2·channels, the length kept."""
    return WeightNormConv1d(channels, 2 * channels, kernel_size, padding=(kernel_size - 1) // 2)
