"""The gated convolution stack that the posterior encoder and the flow share.

WaveNet's residual block (van den Oord et al., https://arxiv.org/abs/1609.03499), not causal, conditioned on the
speaker as in WaveGlow (https://arxiv.org/abs/1811.00002).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.layers.weight_norm import WeightNormConv1d


class WN(nn.Module):
    """``n_layers`` gated convolutions with residual and skip paths; the output is the sum of the skips.

    Args:
        channels: size of input and output.
        kernel_size: size of the gated convolutions, odd.
        n_layers: number of layers; all have dilation 1.
        gin_channels: size of the speaker condition.
        depthwise: use depthwise-separable convolutions, which have a fraction of the weights.
    """

    def __init__(self, channels: int, kernel_size: int, n_layers: int, gin_channels: int, *, depthwise: bool = False):
        super().__init__()
        conv = DepthwiseConv if depthwise else _dense_conv
        self.in_layers = nn.ModuleList(conv(channels, 2 * channels, kernel_size) for _ in range(n_layers))
        # The last layer has only a skip output, no residual.
        widths = [2 * channels] * (n_layers - 1) + [channels]
        self.res_skip_layers = nn.ModuleList(WeightNormConv1d(channels, width, 1) for width in widths)
        self.cond_layer = WeightNormConv1d(gin_channels, 2 * channels * n_layers, 1)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """Map ``x`` (B, C, T), ``mask`` (B, 1, T) and ``g`` (B, G, 1), or (B, G, T) by frame, to (B, C, T)."""
        conditions = self.cond_layer(g).chunk(len(self.in_layers), dim=1)
        total = 0
        for conv, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            out = res_skip(gated(conv(x) + condition))
            if res_skip is self.res_skip_layers[-1]:
                total = total + out
            else:
                residual, skip = out.chunk(2, dim=1)
                x = (x + residual) * mask
                total = total + skip
        return total * mask


def gated(x: Tensor) -> Tensor:
    """Map (B, 2·C, T) to (B, C, T): tanh of the first half of the channels times sigmoid of the second half."""
    signal, gate = x.chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(gate)


class DepthwiseConv(nn.Module):
    """Depthwise-separable convolution: one filter over time per channel, then a 1x1 convolution over the channels.

    Howard et al., https://arxiv.org/abs/1704.04861, without an activation between the two. (B, C, T) -> (B, out, T).
    """

    def __init__(self, channels: int, out_channels: int, kernel_size: int):
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.depth_conv = WeightNormConv1d(channels, channels, kernel_size, padding=padding, groups=channels)
        self.point_conv = WeightNormConv1d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(x))


def _dense_conv(channels: int, out_channels: int, kernel_size: int) -> nn.Module:
    return WeightNormConv1d(channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2)
