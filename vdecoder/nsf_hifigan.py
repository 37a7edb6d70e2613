"""Waveform generator with a harmonic source: HiFi-GAN (https://arxiv.org/abs/2010.05646) plus the neural source-filter
excitation (https://arxiv.org/abs/1904.12088), added at every stage."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.config import ModelConfig
from modules.normed_conv import WeightNormConv1d, WeightNormConvTranspose1d
from vdecoder.source import HarmonicSource

SLOPE = 0.1
LAST_SLOPE = 0.01  # before the last convolution the published models have the other slope


class ResBlock1(nn.Module):
    """Pairs of convolutions, the first of each dilated, around a residual path. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int]):
        super().__init__()
        self.convs1 = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(_same_conv(channels, kernel_size, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            inner = F.leaky_relu(first(F.leaky_relu(x, SLOPE)), SLOPE, inplace=True)
            x = x + second(inner)
        return x

    @staticmethod
    def reach(kernel_size: int, dilations: list[int]) -> int:
        """How many samples to each side an output sample depends on."""
        return (kernel_size - 1) // 2 * (sum(dilations) + len(dilations))


class ResBlock2(nn.Module):
    """Two dilated convolutions, each around a residual path. (B, C, L) -> (B, C, L)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int]):
        super().__init__()
        self.convs = nn.ModuleList(_same_conv(channels, kernel_size, dilation) for dilation in dilations[:2])

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, SLOPE))
        return x

    @staticmethod
    def reach(kernel_size: int, dilations: list[int]) -> int:
        return (kernel_size - 1) // 2 * sum(dilations[:2])


class NsfHifigan(nn.Module):
    """Latent frames, F0 and a speaker to audio at ``hop_length`` samples a frame, the product of the upsample rates."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        rates, kernels = model.upsample_rates, model.upsample_kernel_sizes
        channels = [model.upsample_initial_channel // 2**stage for stage in range(len(rates) + 1)]
        block = ResBlock1 if model.resblock == "1" else ResBlock2
        shapes = list(zip(model.resblock_kernel_sizes, model.resblock_dilation_sizes, strict=True))
        self.hop_length = math.prod(rates)
        self.context = _context_frames(rates, kernels, [block.reach(*shape) for shape in shapes])
        self.blocks_per_stage = len(shapes)
        # The order of these is the order of optimizer states.
        self.m_source = HarmonicSource(model.sampling_rate, self.hop_length)
        self.noise_convs = nn.ModuleList(
            _noise_conv(width, math.prod(rates[stage + 1 :])) for stage, width in enumerate(channels[1:])
        )
        self.conv_pre = WeightNormConv1d(model.inter_channels, channels[0], 7, padding=3)
        self.ups = nn.ModuleList(
            _upsampling_conv(wide, narrow, kernel, rate)
            for (wide, narrow), kernel, rate in zip(pairwise(channels), kernels, rates, strict=True)
        )
        self.resblocks = nn.ModuleList(block(width, *shape) for width in channels[1:] for shape in shapes)
        self.conv_post = WeightNormConv1d(channels[-1], 1, 7, padding=3)
        self.cond = nn.Conv1d(model.gin_channels, channels[0], 1)

    def forward(self, z: Tensor, f0: Tensor, g: Tensor) -> Tensor:
        """``z`` (B, inter, T), ``f0`` (B, T) in Hz, ``g`` (B, G, 1) or (B, G, T) -> (B, 1, hop_length·T) in [-1, 1]."""
        return self.generate(z, self.m_source(f0), g)

    def generate(self, z: Tensor, source: Tensor, g: Tensor) -> Tensor:
        """As forward, with the excitation (B, 1, hop_length·T) given."""
        x = self.conv_pre(z) + self.cond(g)
        for stage, (up, noise_conv) in enumerate(zip(self.ups, self.noise_convs, strict=True)):
            x = up(F.leaky_relu(x, SLOPE)) + noise_conv(source)
            first = stage * self.blocks_per_stage
            blocks = self.resblocks[first : first + self.blocks_per_stage]
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))

    def decode(
        self, z: Tensor, f0: Tensor, g: Tensor, generator: torch.Generator | None = None, block_frames: int = 128
    ) -> Tensor:
        """Forward for a whole song, in blocks with enough context on both sides that none can hear the seams.

        The result is that of one pass to rounding. Memory stays that of a block, and a CPU is quicker than in one
        pass, whose activations leave its cache.
        """
        source = self.m_source(f0, generator)
        pieces = []
        for start in range(0, z.shape[2], block_frames):
            left = max(0, start - self.context)
            frames = slice(left, start + block_frames + self.context)
            samples = slice(left * self.hop_length, frames.stop * self.hop_length)
            piece = self.generate(z[:, :, frames], source[:, :, samples], g if g.shape[2] == 1 else g[:, :, frames])
            skip = (start - left) * self.hop_length
            pieces.append(piece[:, :, skip : skip + block_frames * self.hop_length])
        return torch.cat(pieces, dim=2)


def _same_conv(channels: int, kernel_size: int, dilation: int) -> nn.Module:
    padding = (kernel_size - 1) * dilation // 2
    return WeightNormConv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)


def _upsampling_conv(channels: int, out_channels: int, kernel_size: int, rate: int) -> nn.Module:
    excess = kernel_size - rate
    return WeightNormConvTranspose1d(
        channels, out_channels, kernel_size, rate, padding=(excess + 1) // 2, output_padding=excess % 2
    )


def _noise_conv(channels: int, stride: int) -> nn.Module:
    """Brings the excitation down to a stage's rate; at the last stage there is nothing to bring down."""
    if stride == 1:
        return nn.Conv1d(1, channels, 1)
    return nn.Conv1d(1, channels, 2 * stride, stride, padding=(stride + 1) // 2)


def _context_frames(rates: list[int], kernels: list[int], reaches: list[int]) -> int:
    """How many frames to each side an output sample depends on, rounded up."""
    frames, rate = 3.0, 1
    for factor, kernel in zip(rates, kernels, strict=True):
        frames += (kernel / factor + 1) / rate
        rate *= factor
        frames += max(reaches) / rate
    return math.ceil(frames + 3 / rate + 1)
