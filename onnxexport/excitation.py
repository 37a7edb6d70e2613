"""The sine source inside a graph: it samples its random numbers itself and computes all frames at once."""

from __future__ import annotations

import torch
from torch import Tensor

from vdecoder.source import HarmonicSource


def excitation(source: HarmonicSource, f0: Tensor) -> Tensor:
    """Compute the excitation (1, 1, hop·T) of ``f0`` (1, T).

    The graph samples in the source's order: uniform (1, tracks) for the first phases, then normal (1, samples, tracks)
    for the noise.
    """
    phases = source.phases(f0, torch.rand(1, source.tracks))
    return source.mix(f0, phases, torch.randn(source.noise_shape(f0)))
