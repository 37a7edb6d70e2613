"""Convolutions whose weight is normalised: weight norm and spectral norm, with the published parameter names.

Plain classes with plain parameters, so that they copy, pickle and list their parameters in the published order
(``bias``, ``weight_g``, ``weight_v``), which optimizer states depend on.

Weight norm: Salimans and Kingma, https://arxiv.org/abs/1602.07868.
Spectral norm: Miyato et al., https://arxiv.org/abs/1802.05957.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NormedWeight(nn.Module):
    """Mixed in before a convolution class: ``forward`` convolves with ``normed_weight()`` in place of ``weight``."""

    def normed_weight(self) -> Tensor:
        raise NotImplementedError

    def fold(self) -> None:
        """Replace the normalised weight by its present value, for inference: same numbers, no cost per call."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        weight = self.normed_weight() if self.weight is None else self.weight
        if isinstance(self, nn.ConvTranspose1d):
            return F.conv_transpose1d(
                x, weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
            )
        return self._conv_forward(x, weight, self.bias)


class WeightNorm(NormedWeight):
    """``weight = weight_g · weight_v / |weight_v|``, the norm taken over every dimension but the first."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        weight = self.weight.detach()
        self.weight = None
        self.weight_g = nn.Parameter(torch.norm_except_dim(weight, 2, 0))
        self.weight_v = nn.Parameter(weight)

    def normed_weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, 0)

    def fold(self) -> None:
        if self.weight is None:
            self.weight = nn.Parameter(self.normed_weight().detach())
            del self.weight_g, self.weight_v


class SpectralNorm(NormedWeight):
    """``weight = weight_orig / σ``, σ the largest singular value by one power iteration per training pass.

    The weight is seen as a matrix of ``out_channels`` rows; ``weight_u`` and ``weight_v`` are its singular vectors.
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
        # below, because autocast would take matrix products in half precision.
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


class WeightNormConv1d(WeightNorm, nn.Conv1d):
    pass


class WeightNormConv2d(WeightNorm, nn.Conv2d):
    pass


class WeightNormConvTranspose1d(WeightNorm, nn.ConvTranspose1d):
    """The first dimension of a transposed convolution's weight is its input channels: ``weight_g`` has as many."""


class SpectralNormConv1d(SpectralNorm, nn.Conv1d):
    pass


class SpectralNormConv2d(SpectralNorm, nn.Conv2d):
    pass


def fold_normed_weights(module: nn.Module) -> None:
    """Fold every normalised convolution inside ``module``, which is then fit for inference alone."""
    for part in module.modules():
        if isinstance(part, NormedWeight):
            part.fold()
