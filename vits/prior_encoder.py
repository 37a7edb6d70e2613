"""The prior encoder: content and pitch to the prior of the latent frames."""

from __future__ import annotations

from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers.attention import RelativeEncoder
from modules.layers.convolution import Conv1d
from vits.f0_decoder import COARSE_BINS


class PriorEncoder(nn.Module):
    """Adds an embedding of the coarse F0 to the content and encodes both with windowed attention."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        self.proj = Conv1d(model.hidden_channels, 2 * model.inter_channels, 1)
        self.f0_emb = nn.Embedding(COARSE_BINS, model.hidden_channels)
        self.enc_ = RelativeEncoder(
            model.hidden_channels,
            model.filter_channels,
            model.n_heads,
            model.n_layers,
            model.kernel_size,
            model.p_dropout,
        )

    def forward(self, x: Tensor, mask: Tensor, coarse_f0: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` (B, hidden, T), integer ``coarse_f0`` (B, T) to mean and log standard deviation (B, inter, T)."""
        x = x + self.f0_emb(coarse_f0).transpose(1, 2)
        mean, log_std = (self.proj(self.enc_(x, mask)) * mask).chunk(2, dim=1)
        return mean, log_std
