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
from modules.layers.matrix_upsampling import MatrixUpsampling
from modules.layers.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d, fold_normed_weights
from vdecoder.block_plan import BlockPlan, plan_block
from vdecoder.residual_blocks import FourierResBlock, HalfResBlock, LeakyRelu, ResBlock1, ResBlock2
from vdecoder.source import HarmonicSource

BLOCK_FRAMES, GPU_BLOCK_FRAMES = 172, 1024  # decoded at once on a CPU, and on a GPU
LAST_SLOPE = 0.01  # of the LeakyReLU before the last convolution, as in the published models

# Initial weights that let training use the sine source early. PyTorch's defaults bring the source to the stages at 0.1
# to 0.5 of the latent's level, and a short training learns the 86 Hz comb of the frame rate first. These bring it to
# 0.7 to 3. At twice these levels a short training does not learn to keep the source out of consonants.
SOURCE_WEIGHT = 0.7  # weight of each sine in the excitation
SOURCE_GAIN = 1.5  # gain of the convolutions that bring the excitation to the stages


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

    def generate(self, z: Tensor, source: Tensor, g: Tensor | None = None, plan: BlockPlan | None = None) -> Tensor:
        """Compute ``forward`` with the excitation (B, 1, hop_length·T) given.

        With a plan, ``z``, ``source`` and ``g`` are those of its window, and the output that of its block.
        """
        x = self.conv_pre(z)
        if self.cond is not None:
            x = x + self.cond(g)
        for stage, (activate, up, noise_conv) in enumerate(zip(self.snakes, self.ups, self.noise_convs, strict=True)):
            excitation = noise_conv(source)
            if plan:
                cut = plan.cuts[stage]
                x = up(activate(x[:, :, cut.input]))[:, :, cut.upsampled] + excitation[:, :, cut.excitation]
            else:
                x = up(activate(x)) + excitation
            blocks = self.stage_blocks(stage)
            x = sum(block(x) for block in blocks) / len(blocks)
        audio = torch.tanh(self.conv_post(self.snake_post(x)))
        return audio[:, :, plan.kept] if plan else audio

    def stage_blocks(self, stage: int) -> nn.ModuleList:
        """Return the residual blocks of a stage, whose outputs are averaged."""
        first = stage * self.blocks_per_stage
        return self.resblocks[first : first + self.blocks_per_stage]

    def decode(
        self,
        z: Tensor,
        f0: Tensor,
        g: Tensor | None = None,
        generator: torch.Generator | None = None,
        block_frames: int | None = None,
        needed: slice = slice(None),
        on_progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Compute ``forward`` for a whole song, in equal blocks of at most ``block_frames`` with the context they need.

        The result equals one pass up to rounding. Activations take the memory of one block. By default a block is as
        long as is fast on the device: a CPU keeps a short one in its cache, a GPU needs a long one to be busy. Only the
        frames in ``needed`` are computed; the audio of the others is zero. ``on_progress`` is called with the number of
        frames that are done, after every block.
        """
        source = self.m_source(f0, generator)
        frames, per_frame = z.shape[2], g is not None and g.shape[2] > 1
        start, stop, _ = needed.indices(frames)
        block_frames = block_frames or (BLOCK_FRAMES if z.device.type == "cpu" else GPU_BLOCK_FRAMES)
        count = max(1, -(-(stop - start) // block_frames))
        audio = z.new_zeros(len(z), 1, frames * self.hop_length)
        for first, last in pairwise(start + (stop - start) * block // count for block in range(count + 1)):
            plan = plan_block(self, first, last, frames)
            window = plan.window
            samples = slice(window.start * self.hop_length, window.stop * self.hop_length)
            speaker = g[:, :, window] if per_frame else g
            block = self.generate(z[:, :, window], source[:, :, samples], speaker, plan)
            audio[:, :, first * self.hop_length : last * self.hop_length] = block
            if on_progress:
                on_progress(last)
        return audio

    def prepare_for_conversion(self, dtype: torch.dtype = torch.float32) -> None:
        """Give the layers the form that is fastest on the network's device, which serves only for inference.

        In float32 on a CPU the residual blocks convolve in the frequency domain: the same values within rounding, in
        less than two thirds of the time. In half precision only their convolutions compute in it, and in bfloat16 not
        those of the last stage, which do a twentieth of the work and would cause most of the error.
        """
        fold_normed_weights(self)
        on_cpu = self.conv_post.bias.device.type == "cpu"
        exact = {torch.float32: len(self.resblocks), torch.bfloat16: self.blocks_per_stage}.get(dtype, 0)
        halved, kept = self.resblocks[: len(self.resblocks) - exact], self.resblocks[len(self.resblocks) - exact :]
        self.resblocks = nn.ModuleList(HalfResBlock(block, dtype) for block in halved)
        self.resblocks.extend(map(FourierResBlock, kept) if on_cpu else kept)
        if on_cpu and dtype == torch.float32:
            self.ups = nn.ModuleList(map(MatrixUpsampling, self.ups))


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
