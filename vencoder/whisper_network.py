"""The network of Whisper's encoder. Parameters are named as in the transformers library.

A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022, section 2.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers.convolution import Conv1d
from vencoder.attention import Attention


class WhisperEncoder(nn.Module):
    """Two convolutions and a transformer with norms before its sublayers: (B, bands, 2·N) -> (B, N, C).

    Args:
        bands: of the spectrogram.
        frames: the largest N.
        width: C.
        layers: number of transformer layers.
        heads: number of heads. Raises ValueError unless it divides ``width``.
        inner: width of the feed-forward layers.
    """

    def __init__(self, bands: int, frames: int, width: int, layers: int, heads: int, inner: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads of {width} features")
        self.conv1 = Conv1d(bands, width, 3, padding=1)
        self.conv2 = Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding.from_pretrained(torch.empty(frames, width))
        self.layers = nn.ModuleList(Block(width, heads, inner) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Block(nn.Module):
    """Attention and feed-forward, each added to its input: (B, N, C) -> (B, N, C)."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.self_attn = Attention(width, heads, width // heads, key_bias=False)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
