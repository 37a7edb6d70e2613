"""The sine source inside a graph: random numbers of its own, and all frames in one piece."""

from __future__ import annotations

import torch
from torch import Tensor

from vdecoder.source import HarmonicSource


def excitation(source: HarmonicSource, f0: Tensor) -> Tensor:
    """What ``source`` makes of ``f0`` (1, T). (1, 1, hop·T).

    The graph draws as the source itself does: uniform (1, tracks) for the first phases, then normal
    (1, samples, tracks) for the noise.
    """
    phases = source.phases(f0, torch.rand(1, source.tracks))
    return source.mix(f0, phases, torch.randn(source.noise_shape(f0)))
