"""The posterior encoder: a linear spectrogram to the posterior of the latent frames. Only training needs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers.convolution import Conv1d
from modules.layers.wavenet import WN


class PosteriorEncoder(nn.Module):
    """Sixteen gated layers of kernel size five, conditioned on the speaker."""

    def __init__(self, model: ModelConfig, spec_channels: int):
        super().__init__()
        self.pre = Conv1d(spec_channels, model.hidden_channels, 1)
        self.enc = WN(
            model.hidden_channels,
            kernel_size=5,
            n_layers=16,
            gin_channels=model.gin_channels,
            depthwise=model.use_depthwise_conv,
        )
        self.proj = Conv1d(model.hidden_channels, 2 * model.inter_channels, 1)

    def forward(self, spec: Tensor, mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``spec`` (B, bins, T) and ``g`` (B, G, 1) to a sample, mean and log standard deviation (B, inter, T)."""
        x = self.enc(self.pre(spec) * mask, mask, g)
        mean, log_std = (self.proj(x) * mask).chunk(2, dim=1)
        mean, log_std = mean.float(), log_std.float()
        return (mean + torch.randn(mean.shape, device=mean.device) * log_std.exp()) * mask, mean, log_std
