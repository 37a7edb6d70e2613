"""The invertible map between the posterior's latent frames and the prior's.

Affine coupling: Dinh et al., https://arxiv.org/abs/1605.08803; mean-only, as in VITS, https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.wavenet import WN

COUPLINGS = 4


class Coupling(nn.Module):
    """Shifts the second half of the channels by what ``enc`` makes of the first. It starts as the identity."""

    def __init__(self, channels: int, hidden_channels: int, enc: nn.Module):
        super().__init__()
        self.pre = nn.Conv1d(channels // 2, hidden_channels, 1)
        self.enc = enc
        self.post = nn.Conv1d(hidden_channels, channels // 2, 1)
        nn.init.zeros_(self.post.weight)
        nn.init.zeros_(self.post.bias)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        first, second = x.chunk(2, dim=1)
        shift = self.post(self.enc(self.pre(first) * mask, mask, g)) * mask
        second = (second - shift) * mask if reverse else shift + second * mask
        return torch.cat([first, second], dim=1)


class Flip(nn.Module):
    """Reverses the channels, so that the next coupling shifts the other half."""

    def forward(self, x: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        return x.flip(1)


class Flow(nn.Module):
    """Four couplings, each followed by a flip; ``n_flow_layer`` is the depth of the stack inside a coupling."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        self.flows = nn.ModuleList()
        for _ in range(COUPLINGS):
            enc = WN(model.hidden_channels, kernel_size=5, n_layers=model.n_flow_layer, gin_channels=model.gin_channels)
            self.flows.append(Coupling(model.inter_channels, model.hidden_channels, enc))
            self.flows.append(Flip())

    def forward(self, z: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        """Posterior to prior, or back with ``reverse``: ``z`` (B, inter, T), ``g`` (B, G, 1 or T) -> (B, inter, T)."""
        for flow in reversed(self.flows) if reverse else self.flows:
            z = flow(z, mask, g, reverse)
        return z
