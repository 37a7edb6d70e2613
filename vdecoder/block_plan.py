"""Plan a block of frames: each stage of the generator computes only the samples that the next stage needs.

The plan goes from the block's samples back to the latent. At the ends of a song a block ends there too, where the
network pads with zeros, so blocks give the values of one pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from modules.config.generator_sizes import GeneratorSizes
    from vdecoder.nsf_hifigan import NsfHifigan


class Span(NamedTuple):
    """Samples ``start`` to ``stop`` of a song, at the rate of one stage."""

    start: int
    stop: int

    def widened(self, reach: int, length: int) -> Span:
        """Extend by ``reach`` to both sides, within a song of ``length`` samples."""
        return Span(max(0, self.start - reach), min(length, self.stop + reach))

    def within(self, other: int) -> slice:
        """Return the span as a slice of a tensor that begins at the song's sample ``other``."""
        return slice(self.start - other, self.stop - other)


class Cut(NamedTuple):
    """What a stage keeps of the tensors at three points, as slices of samples."""

    input: slice  # of the previous stage's output
    upsampled: slice  # of its transposed convolution's output
    excitation: slice  # of the excitation at its rate


class BlockPlan(NamedTuple):
    """How to compute a block: the latent's frames that it needs, the cuts, and its samples within the output."""

    window: slice
    cuts: list[Cut]
    kept: slice


def plan_block(net: NsfHifigan, first: int, last: int, frames: int) -> BlockPlan:
    """Plan the block of frames ``first`` to ``last`` of a song of ``frames``."""
    rate = net.hop_length
    block = Span(first * rate, last * rate)
    needed = block.widened(net.snake_post.reach + net.conv_post.padding[0], frames * rate)
    spans: list[tuple[Span, Span]] = []  # for each stage, the samples of its input and of its output
    for stage, up in reversed(list(enumerate(net.ups))):
        upsampled = needed.widened(max(part.reach for part in net.stage_blocks(stage)), frames * rate)
        rate //= up.stride[0]
        needed = _inputs(up, upsampled).widened(net.snakes[stage].reach, frames * rate)
        spans.insert(0, (needed, upsampled))
    window = needed.widened(net.conv_pre.padding[0], frames)
    cuts, present = [], window
    for (needed, upsampled), up in zip(spans, net.ups, strict=True):
        stride = up.stride[0]
        rate *= stride
        excitation = upsampled.within(window.start * rate)
        cuts.append(Cut(needed.within(present.start), upsampled.within(needed.start * stride), excitation))
        present = upsampled
    return BlockPlan(window.within(0), cuts, block.within(present.start))


def context_frames(sizes: GeneratorSizes, activation_reach: int) -> int:
    """Return how many frames on each side a sample depends on at most, from the sizes of a network.

    ``activation_reach`` is the receptive field of an activation to each side, in samples.
    """
    frames, rate = 3.0, 1
    paths = zip(sizes.resblock_kernel_sizes, sizes.resblock_dilation_sizes, strict=True)
    reaches = []
    for kernel, dilations in paths:
        sizes_of_convs = [one for dilation in dilations for one in (dilation, 1)]
        if sizes.resblock != "1":
            sizes_of_convs = dilations[:2]
        reaches.append(sum((kernel - 1) // 2 * dilation + activation_reach for dilation in sizes_of_convs))
    for stride, kernel in zip(sizes.upsample_rates, sizes.upsample_kernel_sizes, strict=True):
        frames += (activation_reach + kernel / stride + 1) / rate
        rate *= stride
        frames += max(reaches) / rate
    return math.ceil(frames + (activation_reach + 3) / rate) + 1


def _inputs(up: nn.ConvTranspose1d, outputs: Span) -> Span:
    """Return the inputs of a transposed convolution that reach these outputs."""
    kernel, stride, padding = up.kernel_size[0], up.stride[0], up.padding[0]
    return Span((outputs.start + padding - kernel) // stride + 1, (outputs.stop - 1 + padding) // stride + 1)
