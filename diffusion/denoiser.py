"""The denoiser: predicts the noise in a noisy mel spectrogram, given the condition. A non-causal WaveNet.

Its architecture is DiffWave's (https://arxiv.org/abs/2009.09761), over frames instead of samples, without dilation.
Shapes: spectrograms (B, M, T), conditions (B, H, T), steps (B,), hidden (B, C, T).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Denoiser(nn.Module):
    """Predicts the noise in a mel at a step. The published ``WaveNet``: the same parameters, in the same order."""

    def __init__(self, n_mels: int, n_layers: int, n_chans: int, n_hidden: int):
        super().__init__()
        self.n_mels = n_mels
        self.input_projection = nn.Conv1d(n_mels, n_chans, 1)
        self.mlp = nn.Sequential(nn.Linear(n_chans, 4 * n_chans), nn.Mish(), nn.Linear(4 * n_chans, n_chans))
        self.residual_layers = nn.ModuleList(ResidualLayer(n_chans, n_hidden) for _ in range(n_layers))
        self.skip_projection = nn.Conv1d(n_chans, n_chans, 1)
        self.output_projection = nn.Conv1d(n_chans, n_mels, 1)
        nn.init.kaiming_normal_(self.input_projection.weight)
        nn.init.kaiming_normal_(self.skip_projection.weight)
        nn.init.zeros_(self.output_projection.weight)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Map ``x`` (B, M, T), ``step`` (B,), also fractional, and ``condition`` (B, H, T) to (B, M, T)."""
        return self.denoise(x, step, self.project(condition))

    def project(self, condition: Tensor) -> list[Tensor]:
        """Return each layer's projection of the condition, (B, 2·C, T). It is the same at every step."""
        return [layer.conditioner_projection(condition) for layer in self.residual_layers]

    def denoise(self, x: Tensor, step: Tensor, projections: Sequence[Tensor]) -> Tensor:
        """Compute ``forward`` with the condition's projections given."""
        x = F.relu(self.input_projection(x))
        step = self.mlp(step_embedding(step, x.shape[1]).to(x.dtype))
        skips = 0
        for layer, projection in zip(self.residual_layers, projections, strict=True):
            x, skip = layer(x, step, projection)
            skips = skips + skip
        x = F.relu(self.skip_projection(skips / math.sqrt(len(self.residual_layers))))
        return self.output_projection(x)


class ResidualLayer(nn.Module):
    """A gated convolution of the previous layer's output, the step and the condition."""

    def __init__(self, channels: int, n_hidden: int):
        super().__init__()
        self.dilated_conv = nn.Conv1d(channels, 2 * channels, 3, padding=1)
        self.diffusion_projection = nn.Linear(channels, channels)
        self.conditioner_projection = nn.Conv1d(n_hidden, 2 * channels, 1)
        self.output_projection = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, x: Tensor, step: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, C, T), ``step`` (B, C), ``projection`` (B, 2·C, T) to the next layer's x and a skip output."""
        y = self.dilated_conv(x + self.diffusion_projection(step)[:, :, None]) + projection
        gate, signal = y.chunk(2, dim=1)
        residual, skip = self.output_projection(torch.sigmoid(gate) * torch.tanh(signal)).chunk(2, dim=1)
        return (x + residual) / math.sqrt(2), skip


def step_embedding(step: Tensor, width: int) -> Tensor:
    """Compute sines, then cosines, of the step (B,) at frequencies from 1 to 1/10000: (B, width).

    This is the position encoding of https://arxiv.org/abs/1706.03762.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=step.device) * (-math.log(10000) / (half - 1)))
    angles = step[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)
