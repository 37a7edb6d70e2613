"""Convolutions with weight norm or spectral norm, with the published parameter names.

Plain classes with plain parameters can be copied and pickled and list their parameters in the published order
(``bias``, ``weight_g``, ``weight_v``), on which optimizer states depend.

Weight norm: Salimans and Kingma, https://arxiv.org/abs/1602.07868.
Spectral norm: Miyato et al., https://arxiv.org/abs/1802.05957.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers.convolution import Conv1d, Conv2d, ConvTranspose1d


class NormedWeight(nn.Module):
    """Mixin before a convolution class: ``forward`` convolves with ``normed_weight()`` in place of ``weight``."""

    cached: list[Tensor] | None = None  # see cached_weights

    def normed_weight(self) -> Tensor:
        raise NotImplementedError

    def fold(self) -> None:
        """Replace the normalised weight by its current value, for inference: same result, no cost per call."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self._current_weight(), self.bias)

    def _current_weight(self) -> Tensor:
        if self.weight is not None:
            return self.weight
        if self.cached is None:
            return self.normed_weight()
        if not self.cached:
            self.cached.append(self.normed_weight())
        return self.cached[0]


class WeightNorm(NormedWeight):
    """``weight = weight_g · weight_v / |weight_v|``, the norm taken over every dimension but the first."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        weight = self.weight.detach()
        self.weight = None
        # On the meta device PyTorch would import its compiler for the norm, which takes a second.
        norm = weight.new_empty(len(weight), *[1] * (weight.dim() - 1))
        self.weight_g = nn.Parameter(norm if weight.is_meta else torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)

    def normed_weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, 0)

    def fold(self) -> None:
        if self.weight is None:
            self.weight = nn.Parameter(self.normed_weight().detach())
            del self.weight_g, self.weight_v


class SpectralNorm(NormedWeight):
    """``weight = weight_orig / σ``, σ the largest singular value by one power iteration per training pass.

    The weight is reshaped to a matrix of ``out_channels`` rows; ``weight_u`` and ``weight_v`` are its singular vectors.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        weight = self.weight.detach()
        self.weight = None
        self.weight_orig = nn.Parameter(weight)
        rows, columns = weight.flatten(1).shape
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0, eps=1e-12))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0, eps=1e-12))

    def normed_weight(self) -> Tensor:
        matrix = self.weight_orig.flatten(1)
        if self.training:
            self._iterate(matrix)
        # Copies, because another pass before the backward changes the buffers in place. Sums of products here and
        # below, because autocast would compute matrix products in half precision.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / (u * (matrix * v).sum(dim=1)).sum()

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.weight_v.copy_(F.normalize((matrix * self.weight_u[:, None]).sum(dim=0), dim=0, eps=1e-12))
        self.weight_u.copy_(F.normalize((matrix * self.weight_v).sum(dim=1), dim=0, eps=1e-12))

    def fold(self) -> None:
        if self.weight is None:
            self.eval()
            self.weight = nn.Parameter(self.normed_weight().detach())
            del self.weight_orig, self.weight_u, self.weight_v


class WeightNormConv1d(WeightNorm, Conv1d):
    pass


class WeightNormConv2d(WeightNorm, Conv2d):
    pass


class WeightNormConvTranspose1d(WeightNorm, ConvTranspose1d):
    """``weight_g`` has one value per input channel, the first dimension of a transposed convolution's weight."""


class SpectralNormConv1d(SpectralNorm, Conv1d):
    pass


class SpectralNormConv2d(SpectralNorm, Conv2d):
    pass


@contextlib.contextmanager
def cached_weights(net: nn.Module) -> Iterator[None]:
    """Compute each normalised weight once inside the context; the parameters must not change there."""
    parts = [part for part in net.modules() if isinstance(part, NormedWeight)]
    for part in parts:
        part.cached = []
    try:
        yield
    finally:
        for part in parts:
            del part.cached


def fold_normed_weights(module: nn.Module) -> None:
    """Fold every normalised convolution inside ``module``, which then serves only for inference."""
    for part in module.modules():
        if isinstance(part, NormedWeight):
            part.fold()
