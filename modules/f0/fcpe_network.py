"""The network of FCPE: convolutions over the log-mel, then layers of linear attention and depthwise convolution.

Yang Luo et al., "FCPE: A Fast Context-based Pitch Estimation Model" (2025); the attention is that of K. Choromanski et
al., "Rethinking Attention with Performers" (2021). Modules are named as in the published weight files.

Every layer is computed for the whole sound, block by block, before the next one begins. What a layer knows of all
frames are two sums, so the blocks give what the whole gives, and one array of the sound's length is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.device import without_autocast
from modules.f0.blocks import blocks
from modules.normed_conv import WeightNorm

HEADS, HEAD_SIZE = 8, 64
RANDOM_FEATURES = int(HEAD_SIZE * math.log(HEAD_SIZE))
KERNEL = 31  # frames, of the depthwise convolution
GROUPS = 4  # that the first layer's channels are normalised in
BLOCK = 4096  # frames at once: 41 s


@dataclass(frozen=True)
class FcpeSizes:
    """What a weight file decides; the defaults are the published ones. ``f0_min`` and ``f0_max`` (Hz) are the pitches
    of the first and the last bin."""

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
        self.register_buffer("cent_table", torch.linspace(*map(cents, (sizes.f0_min, sizes.f0_max)), sizes.bins))
        self.stack = Stack(sizes.mels, sizes.channels)
        self.decoder = Layers(sizes)
        self.norm = nn.LayerNorm(sizes.channels)
        self.dense_out = NormedLinear(sizes.channels, sizes.bins)

    def forward(self, mel: Tensor) -> Tensor:
        """Salience ``(B, N, bins)`` in [0, 1] of the log-mel ``(B, mels, N)``."""
        return torch.cat(list(self.saliences(mel)), dim=1)

    @torch.no_grad()
    def saliences(self, mel: Tensor, block: int = BLOCK) -> Iterator[Tensor]:
        """The same in consecutive parts of at most ``block`` frames, equal to rounding."""
        x = self.stack(mel, block)
        for layer in self.decoder._layers:
            layer(x, block)
        for part in x.split(block, dim=1):
            yield torch.sigmoid(self.dense_out(self.norm(part)))


def cents(f0: float) -> float:
    """Above 10 Hz."""
    return 1200 * math.log2(f0 / 10)


class Stack(nn.Sequential):
    """From the spectrogram to the layers' width: two convolutions, between them a norm over channels and time."""

    def __init__(self, mels: int, channels: int):
        super().__init__(
            nn.Conv1d(mels, channels, 3, padding=1),
            nn.GroupNorm(GROUPS, channels),
            nn.LeakyReLU(),
            nn.Conv1d(channels, channels, 3, padding=1),
        )

    def forward(self, mel: Tensor, block: int) -> Tensor:
        """``(B, mels, N)`` -> ``(B, N, channels)``."""
        first, norm, rectify, last = self
        mean, deviation = self._moments(mel, block)
        out = mel.new_empty(mel.shape[0], mel.shape[-1], norm.num_channels)
        for b in blocks(mel.shape[-1], block, context=2):
            x = (first(mel[..., b.first : b.last]).float() - mean) / deviation
            x = rectify(x * norm.weight[:, None] + norm.bias[:, None])
            out[:, b.begin : b.end] = last(x).transpose(1, 2)[:, b.kept]
        return out

    def _moments(self, mel: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel's group over all frames, both ``(B, channels, 1)``."""
        first, norm, *_ = self
        sums = 0
        for b in blocks(mel.shape[-1], block, context=1):
            x = first(mel[..., b.first : b.last])[..., b.kept].unflatten(1, (norm.num_groups, -1)).float()
            sums = sums + torch.stack((x.sum((2, 3)), x.square().sum((2, 3)))).cpu().double()
        mean, power = sums * norm.num_groups / (norm.num_channels * mel.shape[-1])
        moments = (mean, (power - mean.square() + norm.eps).sqrt())
        size = norm.num_channels // norm.num_groups
        return tuple(m.float().repeat_interleave(size, 1)[..., None].to(mel.device) for m in moments)


class Layers(nn.Module):
    def __init__(self, sizes: FcpeSizes):
        super().__init__()
        self._layers = nn.ModuleList(Layer(sizes.channels, sizes.attention) for _ in range(sizes.layers))


class Layer(nn.Module):
    """Changes ``(B, N, channels)`` in place, so that a long sound stands in memory once."""

    def __init__(self, channels: int, attention: bool):
        super().__init__()
        self.conformer = Conformer(channels)
        self.norm = nn.LayerNorm(channels)
        self.attn = Attention(channels) if attention else None

    def forward(self, x: Tensor, block: int) -> None:
        if self.attn is not None:
            self._attend(x, block)
        self._convolve(x, block)

    def _attend(self, x: Tensor, block: int) -> None:
        parts = x.split(block, dim=1)
        summaries = [self.attn.summary(self.norm(part)) for part in parts]
        summary = [sum(sums) for sums in zip(*summaries, strict=True)]
        for part in parts:
            part += self.attn(self.norm(part), *summary)

    def _convolve(self, x: Tensor, block: int) -> None:
        reach = KERNEL // 2
        before = x[:, :0]  # the frames to the left as they were before this layer changed them
        for b in blocks(x.shape[1], block, reach):
            kept = x[:, max(b.end - reach, 0) : b.end].clone()
            change = self.conformer(torch.cat((before, x[:, b.begin : b.last]), dim=1))
            x[:, b.begin : b.end] += change[:, before.shape[1] :][:, : b.end - b.begin]
            before = kept


class Conformer(nn.Module):
    """A gated depthwise convolution over time, ``(B, N, channels)`` -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(channels),
            Transpose(),
            nn.Conv1d(channels, 4 * channels, 1),
            nn.GLU(dim=1),
            DepthwiseConv(2 * channels),
            nn.SiLU(),
            nn.Conv1d(2 * channels, channels, 1),
            Transpose(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class DepthwiseConv(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Attention(nn.Module):
    """Attention of all frames to all, in time linear in their number: the softmax's kernel by random features."""

    def __init__(self, channels: int):
        super().__init__()
        self.fast_attention = RandomFeatures()
        inner = HEADS * HEAD_SIZE
        self.to_q = nn.Linear(channels, inner)
        self.to_k = nn.Linear(channels, inner)
        self.to_v = nn.Linear(channels, inner)
        self.to_out = nn.Linear(inner, channels)

    def summary(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All that others need of the frames ``(B, n, channels)``: keys by values, and keys, each summed over them."""
        with without_autocast(x.device):
            keys = self.fast_attention.keys(_heads(self.to_k(x.float())))
            values = _heads(self.to_v(x.float()))
            return keys.transpose(-1, -2) @ values, keys.sum(dim=-2)

    def forward(self, x: Tensor, values: Tensor, keys: Tensor) -> Tensor:
        """What the frames ``(B, n, channels)`` gather from all those that the summary is of."""
        with without_autocast(x.device):
            queries = self.fast_attention.queries(_heads(self.to_q(x.float())))
            gathered = queries @ values / ((queries * keys[..., None, :]).sum(-1, keepdim=True) + 1e-8)
            return self.to_out(gathered.transpose(1, 2).flatten(2))


def _heads(x: Tensor) -> Tensor:
    """``(B, n, heads * size)`` -> ``(B, heads, n, size)``."""
    return x.unflatten(-1, (HEADS, HEAD_SIZE)).transpose(1, 2)


class RandomFeatures(nn.Module):
    """Positive features whose products approximate the exponential of a scalar product: ``(..., 64)`` to
    ``(..., 266)``. The random directions are part of the weight file.
    """

    EPSILON = 1e-4

    def __init__(self):
        super().__init__()
        self.register_buffer("projection_matrix", torch.randn(RANDOM_FEATURES, HEAD_SIZE))

    def queries(self, x: Tensor) -> Tensor:
        logits, half_square = self._project(x)
        return RANDOM_FEATURES**-0.5 * ((logits - half_square - logits.amax(-1, keepdim=True)).exp() + self.EPSILON)

    def keys(self, x: Tensor) -> Tensor:
        logits, half_square = self._project(x)
        return RANDOM_FEATURES**-0.5 * (logits - half_square + self.EPSILON).exp()

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * HEAD_SIZE**-0.25
        return x @ self.projection_matrix.T, x.square().sum(-1, keepdim=True) / 2


class NormedLinear(WeightNorm, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normed_weight() if self.weight is None else self.weight, self.bias)
