"""Sizes of a waveform generator, with the same keys in the configurations of synthesizer and vocoder."""

from __future__ import annotations

import math
from typing import Protocol


class GeneratorSizes(Protocol):
    """Keys that both kinds of config.json have."""

    sampling_rate: int
    upsample_rates: list[int]
    upsample_kernel_sizes: list[int]
    upsample_initial_channel: int
    resblock: str
    resblock_kernel_sizes: list[int]
    resblock_dilation_sizes: list[list[int]]


def generator_rules(sizes: GeneratorSizes, hop: tuple[str, int], section: str = "") -> dict[str, bool]:
    """Return the rules for the sizes of a valid network: each rule's error message, and whether the rule holds.

    ``hop`` is the key and value of the hop length; ``section`` is the prefix of the sizes' keys in messages.
    """
    rates, kernels, channels = sizes.upsample_rates, sizes.upsample_kernel_sizes, sizes.upsample_initial_channel
    blocks, dilations = sizes.resblock_kernel_sizes, sizes.resblock_dilation_sizes
    hop_key, hop_length = hop
    product = math.prod(rates)
    return {
        f"{section}upsample_rates multiply to {product}, but {hop_key} is {hop_length}; they must be equal": (
            product == hop_length
        ),
        f"{section}upsample_rates and {section}upsample_kernel_sizes must have as many items": (
            len(rates) == len(kernels)
        ),
        f"{section}upsample_rates is {rates}; each must be 1 or more": all(rate > 0 for rate in rates),
        f"{section}upsample_kernel_sizes is {kernels}; none may be smaller than its rate ({rates}), or even where that "
        "is 1": all(k >= rate and (rate > 1 or k % 2) for k, rate in zip(kernels, rates, strict=False)),
        f"{section}upsample_initial_channel is {channels}; it must be at least {2 ** len(rates)}, for each of the "
        f"{len(rates)} {section}upsample_rates halves it": channels >= 2 ** len(rates),
        f"{section}resblock_kernel_sizes and {section}resblock_dilation_sizes must have as many items, one at least": (
            len(blocks) == len(dilations) > 0
        ),
        f"{section}resblock_kernel_sizes is {blocks}; each must be odd and above 0": (
            all(size > 0 and size % 2 for size in blocks)
        ),
        f"{section}resblock_dilation_sizes is {dilations}; each must have one number at least, and all 1 or more": (
            all(of_block and min(of_block) > 0 for of_block in dilations)
        ),
    }
