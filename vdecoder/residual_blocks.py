"""The residual blocks of the generator, which take nearly all of its time, and their faster form for a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modules.layers.fourier_convolution import FourierConv1d
from modules.layers.weight_norm import WeightNormConv1d

SLOPE = 0.1
Path = list[tuple[nn.Module, nn.Module]]  # activations and convolutions in turn, around which a residual path leads


class LeakyRelu(nn.LeakyReLU):
    """LeakyReLU; ``channels`` is ignored, for interchangeability with Snake."""

    reach = 0

    def __init__(self, channels: int, slope: float = SLOPE):
        super().__init__(slope)


class ResBlock(nn.Module):
    """Dilated convolutions with residual paths around them. (B, C, L) -> (B, C, L)."""

    def paths(self) -> list[Path]:
        """Return the residual paths in order."""
        raise NotImplementedError

    @property
    def reach(self) -> int:
        """The receptive field to each side in samples."""
        return sum(activate.reach + conv.padding[0] for path in self.paths() for activate, conv in path)

    def forward(self, x: Tensor) -> Tensor:
        for path in self.paths():
            y = x
            for activate, conv in path:
                y = conv(activate(y))
            x = x + y
        return x


class ResBlock1(ResBlock):
    """Pairs of convolutions, the first of each dilated."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], activation: Callable[[int], nn.Module]):
        super().__init__()
        self.convs1 = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_conv(channels, kernel_size, 1) for _ in dilations)
        self.activations = nn.ModuleList(activation(channels) for _ in range(2 * len(dilations)))

    def paths(self) -> list[Path]:
        first = zip(self.activations[::2], self.convs1, strict=True)
        second = zip(self.activations[1::2], self.convs2, strict=True)
        return list(map(list, zip(first, second, strict=True)))


class ResBlock2(ResBlock):
    """Two dilated convolutions."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], activation: Callable[[int], nn.Module]):
        super().__init__()
        self.convs = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations[:2])
        self.activations = nn.ModuleList(activation(channels) for _ in self.convs)

    def paths(self) -> list[Path]:
        return [[step] for step in zip(self.activations, self.convs, strict=True)]


class FourierResBlock(nn.Module):
    """A residual block that convolves in the frequency domain: the same values, for inference in float32 on a CPU."""

    def __init__(self, block: ResBlock):
        super().__init__()
        self.reach = block.reach
        self.steps = nn.ModuleList(
            nn.ModuleList(nn.ModuleList((activate, FourierConv1d(conv))) for activate, conv in path)
            for path in block.paths()
        )

    def forward(self, x: Tensor) -> Tensor:
        results = [self._convolve(item.t()).t() for item in x]
        return results[0][None] if len(results) == 1 else torch.stack(results)

    def _convolve(self, x: Tensor) -> Tensor:
        """Map x (L, C) to (L, C)."""
        length = len(x)
        total = x.new_zeros(max(path[-1][1].rows(length) for path in self.steps), x.shape[1])
        total[:length] = x
        for path in self.steps:
            y = total[:length]
            *others, (activate, conv) = path
            for before, first in others:
                y = first(y, before)
            conv.add_to(total, y, activate)
        return total[:length]


class HalfResBlock(nn.Module):
    """A residual block that convolves in half precision around a residual path in float32, for inference.

    The error is a hundredth of what rounding the residual path as well would give.
    """

    def __init__(self, block: ResBlock, dtype: torch.dtype):
        super().__init__()
        self.reach, self.dtype = block.reach, dtype
        self.block = block.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        for path in self.block.paths():
            y = x.to(self.dtype)
            for activate, conv in path:
                y = conv(activate(y))
            x = x + y
        return x


def _same_conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    padding = (kernel_size - 1) * dilation // 2
    return WeightNormConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
