"""The network of FCPE: convolutions over the log-mel, then layers of linear attention and depthwise convolution.

Yang Luo et al., "FCPE: A Fast Context-based Pitch Estimation Model" (2025); attention by K. Choromanski et al.,
"Rethinking Attention with Performers" (2021). Modules are named as in the published weight files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.device import without_autocast
from modules.layers.weight_norm import WeightNorm

HEADS, HEAD_SIZE = 8, 64
RANDOM_FEATURES = int(HEAD_SIZE * math.log(HEAD_SIZE))
KERNEL = 31  # frames; width of the depthwise convolution
GROUPS = 4  # groups of the norm after the first convolution


@dataclass(frozen=True)
class FcpeSizes:
    """Sizes of the network; the defaults are the published ones. ``f0_min`` and ``f0_max`` (Hz) are the pitches of the
    first and the last bin."""

    mels: int = 128
    channels: int = 512
    layers: int = 12
    bins: int = 360
    attention: bool = True
    f0_min: float = 32.7
    f0_max: float = 1975.5


class FcpeNetwork(nn.Module):
    def __init__(self, sizes: FcpeSizes):
        super().__init__()
        edges = cents(sizes.f0_min), cents(sizes.f0_max)
        pitches = torch.linspace(*edges, sizes.bins, device="cpu")  # on the meta device PyTorch would import sympy
        self.register_buffer("cent_table", pitches)
        self.stack = nn.Sequential(
            nn.Conv1d(sizes.mels, sizes.channels, 3, padding=1),
            nn.GroupNorm(GROUPS, sizes.channels),
            nn.LeakyReLU(),
            nn.Conv1d(sizes.channels, sizes.channels, 3, padding=1),
        )
        self.decoder = Layers(sizes)
        self.norm = nn.LayerNorm(sizes.channels)
        self.dense_out = NormedLinear(sizes.channels, sizes.bins)

    def forward(self, mel: Tensor) -> Tensor:
        """Map the log-mel ``(B, mels, N)`` to the salience ``(B, N, bins)`` in [0, 1]."""
        x = self.stack(mel).transpose(1, 2).float().contiguous()  # the residual stream stays float32 inside autocast
        for layer in self.decoder._layers:
            x = layer(x)
        return torch.sigmoid(self.dense_out(self.norm(x)))


def cents(f0: float) -> float:
    """Convert F0 in Hz to cents above 10 Hz."""
    return 1200 * math.log2(f0 / 10)


class Layers(nn.Module):
    def __init__(self, sizes: FcpeSizes):
        super().__init__()
        self._layers = nn.ModuleList(Layer(sizes.channels, sizes.attention) for _ in range(sizes.layers))


class Layer(nn.Module):
    """Attention, then a convolution: ``(B, N, channels)`` to the same shape."""

    def __init__(self, channels: int, attention: bool):
        super().__init__()
        self.conformer = Conformer(channels)
        self.norm = nn.LayerNorm(channels)
        self.attn = Attention(channels) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        if self.attn is not None:
            x = x + self.attn(self.norm(x))
        return x + self.conformer(x)


class Conformer(nn.Module):
    """A gated depthwise convolution over time: ``(B, N, channels)`` to the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Identity(),
            PointwiseConv(channels, 4 * channels),
            nn.GLU(dim=-1),
            DepthwiseConv(2 * channels),
            nn.SiLU(),
            PointwiseConv(2 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PointwiseConv(nn.Conv1d):
    """A convolution of one frame, ``(B, N, inputs)`` -> ``(B, N, outputs)``, as a matrix product."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[:, :, 0], self.bias)


class DepthwiseConv(nn.Module):
    """``(B, N, channels)`` to the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        if x.device.type != "cpu":
            return self.conv(x).transpose(1, 2)
        image = x[:, :, None]  # (B, channels, 1, N), channels-last: 25 times as fast as channels-first
        weight = self.conv.weight[:, :, None]
        x = F.conv2d(image, weight, self.conv.bias, padding=(0, KERNEL // 2), groups=self.conv.groups)
        return x[:, :, 0].transpose(1, 2)


class Attention(nn.Module):
    """Attention in linear time, with the softmax kernel approximated by random features."""

    def __init__(self, channels: int):
        super().__init__()
        self.fast_attention = RandomFeatures()
        inner = HEADS * HEAD_SIZE
        self.to_q = nn.Linear(channels, inner)
        self.to_k = nn.Linear(channels, inner)
        self.to_v = nn.Linear(channels, inner)
        self.to_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, N, channels)`` to the same shape."""
        with without_autocast(x.device):
            queries, keys, values = (_heads(layer(x.float())) for layer in (self.to_q, self.to_k, self.to_v))
            return self.to_out(self.fast_attention(queries, keys, values).transpose(1, 2).flatten(2))


def _heads(x: Tensor) -> Tensor:
    """Split ``(B, n, heads * size)`` into heads: ``(B, heads, n, size)``."""
    return x.unflatten(-1, (HEADS, HEAD_SIZE)).transpose(1, 2)


class RandomFeatures(nn.Module):
    """Attention whose weights are products of positive features, which approximate the exponential of a scalar product.

    The published features of a query are ``(exp(a) + EPSILON) / sqrt(RANDOM_FEATURES)``, those of a key
    ``exp(a + EPSILON) / sqrt(RANDOM_FEATURES)``. Here the factors common to all features are cancelled, and a query's
    EPSILON is multiplied by the sums over the keys, which have no axis of frames. The random directions are part of the
    weight file.
    """

    EPSILON = 1e-4
    LEAST_WEIGHT = 1e-8 * RANDOM_FEATURES / math.exp(EPSILON)  # 1e-8 in the published program, without the factors

    def __init__(self):
        super().__init__()
        self.register_buffer("projection_matrix", torch.zeros(RANDOM_FEATURES, HEAD_SIZE))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Map three of ``(B, heads, N, 64)`` to the same shape."""
        keys = self._exponents(keys).exp_()
        sums, weight = keys.transpose(-1, -2) @ values, keys.sum(-2)[..., None]
        queries = self._exponents(queries, subtract_largest=True).exp_()
        attended = queries @ sums + self.EPSILON * sums.sum(-2, keepdim=True)
        weight = queries @ weight + (self.EPSILON * weight.sum(-2, keepdim=True) + self.LEAST_WEIGHT)
        return attended / weight

    def _exponents(self, x: Tensor, subtract_largest: bool = False) -> Tensor:
        """Map ``(..., N, 64)`` to ``(..., N, 266)``, in place, because memory traffic takes most of the time."""
        projected = x @ (HEAD_SIZE**-0.25 * self.projection_matrix).T
        offset = x.square().sum(-1, keepdim=True) * (HEAD_SIZE**-0.5 / 2)
        if subtract_largest:
            offset += projected.amax(-1, keepdim=True)
        return projected.sub_(offset)


class NormedLinear(WeightNorm, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normed_weight() if self.weight is None else self.weight, self.bias)
