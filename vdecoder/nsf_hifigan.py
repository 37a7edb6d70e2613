"""Waveform generator with a harmonic source: HiFi-GAN (https://arxiv.org/abs/2010.05646) plus the neural source-filter
excitation (https://arxiv.org/abs/1904.12088), added at every stage.

The synthesizer's decoder and the mel vocoder are this network with different inputs; a subclass has other activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from modules.config.generator_sizes import GeneratorSizes
from modules.layers.convolution import Conv1d
from modules.layers.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d
from vdecoder.source import HarmonicSource

SLOPE = 0.1
LAST_SLOPE = 0.01  # of the LeakyReLU before the last convolution, as in the published models

# Initial weights that let training use the sine source early. PyTorch's defaults bring the source to the stages at 0.1
# to 0.5 of the latent's level, and a short training learns the 86 Hz comb of the frame rate first. These bring it to
# 0.7 to 3. At twice these levels a short training does not learn to keep the source out of consonants.
SOURCE_WEIGHT = 0.7  # weight of each sine in the excitation
SOURCE_GAIN = 1.5  # gain of the convolutions that bring the excitation to the stages


class LeakyRelu(nn.LeakyReLU):
    """LeakyReLU; ``channels`` is ignored, for interchangeability with Snake."""

    reach = 0

    def __init__(self, channels: int, slope: float = SLOPE):
        super().__init__(slope)


class ResBlock1(nn.Module):
    """Pairs of convolutions, the first of each dilated, around a residual path. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], activation: Callable[[int], nn.Module]):
        super().__init__()
        self.convs1 = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_conv(channels, kernel_size, 1) for _ in dilations)
        self.activations = nn.ModuleList(activation(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        steps = zip(self.convs1, self.convs2, self.activations[::2], self.activations[1::2], strict=True)
        for first, second, activate, activate_again in steps:
            x = x + second(activate_again(first(activate(x))))
        return x


class ResBlock2(nn.Module):
    """Two dilated convolutions, each around a residual path. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], activation: Callable[[int], nn.Module]):
        super().__init__()
        self.convs = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations[:2])
        self.activations = nn.ModuleList(activation(channels) for _ in self.convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv, activate in zip(self.convs, self.activations, strict=True):
            x = x + conv(activate(x))
        return x


class NsfHifigan(nn.Module):
    """Frames and F0 to audio at ``hop_length`` samples a frame, the product of the upsample rates.

    Args:
        sizes: sizes of a synthesizer or a mel vocoder.
        in_channels: channels of the input, latent or mel.
        gin_channels: channels of the speaker condition; None for a generator without one.
        phases_per_frame: how the sine source accumulates phases, see HarmonicSource.

    A subclass may set ``activation`` and, before the last convolution, ``last_activation``. Both build a module for a
    number of channels, whose ``reach`` is its receptive field to each side in samples of its input.
    """

    activation: Callable[[int], nn.Module] = LeakyRelu
    last_activation: Callable[[int], nn.Module] = staticmethod(lambda channels: LeakyRelu(channels, LAST_SLOPE))

    def __init__(
        self,
        sizes: GeneratorSizes,
        in_channels: int,
        gin_channels: int | None = None,
        *,
        phases_per_frame: bool = False,
    ):
        super().__init__()
        rates, kernels = sizes.upsample_rates, sizes.upsample_kernel_sizes
        channels = [sizes.upsample_initial_channel // 2**stage for stage in range(len(rates) + 1)]
        block = ResBlock1 if sizes.resblock == "1" else ResBlock2
        shapes = list(zip(sizes.resblock_kernel_sizes, sizes.resblock_dilation_sizes, strict=True))
        self.hop_length = math.prod(rates)
        self.blocks_per_stage = len(shapes)
        # Optimizer states depend on this order; snakes and snake_post are named after the Snake variant.
        self.m_source = HarmonicSource(sizes.sampling_rate, self.hop_length, phases_per_frame=phases_per_frame)
        self.noise_convs = nn.ModuleList(
            _noise_conv(width, math.prod(rates[stage + 1 :])) for stage, width in enumerate(channels[1:])
        )
        self.conv_pre = WeightNormConv1d(in_channels, channels[0], 7, padding=3)
        self.ups = nn.ModuleList(
            _upsampling_conv(wide, narrow, kernel, rate)
            for (wide, narrow), kernel, rate in zip(pairwise(channels), kernels, rates, strict=True)
        )
        self.resblocks = nn.ModuleList(
            block(width, *shape, self.activation) for width in channels[1:] for shape in shapes
        )
        self.snakes = nn.ModuleList(map(self.activation, channels[:-1]))
        self.conv_post = WeightNormConv1d(channels[-1], 1, 7, padding=3)
        self.snake_post = self.last_activation(channels[-1])
        self.cond = None if gin_channels is None else Conv1d(gin_channels, channels[0], 1)
        self.context = self._context_frames()
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Set initial weights with which the sine source reaches every stage about as loud as the latent.

        Biases that would add a DC offset start at zero: no mel band holds 0 Hz, so a short training would keep it.
        """
        nn.init.constant_(self.m_source.l_linear.weight, SOURCE_WEIGHT)
        for conv in self.noise_convs:
            conv.weight.mul_(SOURCE_GAIN)
        for layer in (self.m_source.l_linear, self.conv_post):
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, f0: Tensor, g: Tensor | None = None) -> Tensor:
        """Map ``z`` (B, in, T), ``f0`` (B, T) Hz and ``g`` (B, G, 1 or T) to (B, 1, hop_length·T) in [-1, 1]."""
        return self.generate(z, self.m_source(f0), g)

    def generate(self, z: Tensor, source: Tensor, g: Tensor | None = None) -> Tensor:
        """Compute ``forward`` with the excitation (B, 1, hop_length·T) given."""
        x = self.conv_pre(z)
        if self.cond is not None:
            x = x + self.cond(g)
        for stage, (activate, up, noise_conv) in enumerate(zip(self.snakes, self.ups, self.noise_convs, strict=True)):
            x = up(activate(x)) + noise_conv(source)
            first = stage * self.blocks_per_stage
            blocks = self.resblocks[first : first + self.blocks_per_stage]
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.conv_post(self.snake_post(x)))

    def decode(
        self,
        z: Tensor,
        f0: Tensor,
        g: Tensor | None = None,
        generator: torch.Generator | None = None,
        block_frames: int = 128,
    ) -> Tensor:
        """Compute ``forward`` for a whole song, in blocks of ``block_frames`` with full context on both sides.

        The result equals one pass up to rounding. Activations take the memory of one block, and a CPU is faster because
        they stay in its cache.
        """
        source = self.m_source(f0, generator)
        pieces = []
        for start in range(0, z.shape[2], block_frames):
            left = max(0, start - self.context)
            frames = slice(left, start + block_frames + self.context)
            samples = slice(left * self.hop_length, frames.stop * self.hop_length)
            per_frame = g is not None and g.shape[2] > 1
            piece = self.generate(z[:, :, frames], source[:, :, samples], g[:, :, frames] if per_frame else g)
            skip = (start - left) * self.hop_length
            pieces.append(piece[:, :, skip : skip + block_frames * self.hop_length])
        return torch.cat(pieces, dim=2)

    def _context_frames(self) -> int:
        """Return the receptive field to each side of an output sample in frames, rounded up."""
        frames, rate = _reach(self.conv_pre), 1
        for stage, (activate, up) in enumerate(zip(self.snakes, self.ups, strict=True)):
            frames += (activate.reach + up.kernel_size[0] / up.stride[0] + 1) / rate
            rate *= up.stride[0]
            first = stage * self.blocks_per_stage
            frames += max(map(_reach, self.resblocks[first : first + self.blocks_per_stage])) / rate
        return math.ceil(frames + (self.snake_post.reach + _reach(self.conv_post)) / rate + 1)


def _same_conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    padding = (kernel_size - 1) * dilation // 2
    return WeightNormConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)


def _upsampling_conv(channels: int, out_channels: int, kernel_size: int, rate: int) -> nn.Module:
    excess = kernel_size - rate
    return WeightNormConvTranspose1d(
        channels, out_channels, kernel_size, rate, padding=(excess + 1) // 2, output_padding=excess % 2
    )


def _noise_conv(channels: int, stride: int) -> nn.Module:
    """Build the convolution that downsamples the excitation to a stage's rate; at the last stage ``stride`` is 1."""
    if stride == 1:
        return Conv1d(1, channels, 1)
    return Conv1d(1, channels, 2 * stride, stride, padding=(stride + 1) // 2)


def _reach(module: nn.Module) -> int:
    """Return the receptive field to each side, in samples, of same-length convolutions and activations."""
    convs = [part.padding[0] for part in module.modules() if isinstance(part, nn.Conv1d)]
    return sum(convs) + sum(part.reach for part in module.modules() if hasattr(part, "reach"))
