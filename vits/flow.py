"""The invertible map between the posterior's latent frames and the prior's.

Affine coupling: Dinh et al., https://arxiv.org/abs/1605.08803; mean-only, as in VITS, https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers.attention import CausalEncoder
from modules.layers.convolution import Conv1d
from modules.layers.wavenet import WN

COUPLINGS = 4  # in the convolutional flow
KERNEL_SIZE = 5


class Coupling(nn.Module):
    """Shifts the second half of the channels by ``enc`` of the first half. It is initialised to the identity."""

    def __init__(self, channels: int, hidden_channels: int, enc: nn.Module):
        super().__init__()
        self.pre = Conv1d(channels // 2, hidden_channels, 1)
        self.enc = enc
        self.post = Conv1d(hidden_channels, channels // 2, 1)
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
    """Couplings, each followed by a flip.

    ``n_flow_layer`` is the depth of the convolutional stack in each of four couplings, or with
    ``use_transformer_flow`` the number of couplings. With ``flow_share_parameter`` all of them share one stack, ``wn``,
    which a state dict repeats under each of them.
    """

    def __init__(self, model: ModelConfig):
        super().__init__()
        shared = build_stack(model) if model.flow_share_parameter else None
        self.flows = nn.ModuleList()
        for _ in range(model.n_flow_layer if model.use_transformer_flow else COUPLINGS):
            self.flows.append(Coupling(model.inter_channels, model.hidden_channels, shared or build_stack(model)))
            self.flows.append(Flip())
        if shared is not None:  # after the couplings, to keep the order of state dicts
            self.wn = shared

    def forward(self, z: Tensor, mask: Tensor, g: Tensor, reverse: bool = False) -> Tensor:
        """Map ``z`` (B, inter, T) from the posterior to the prior, or back with ``reverse``; ``g`` (B, G, 1 or T)."""
        for flow in reversed(self.flows) if reverse else self.flows:
            z = flow(z, mask, g, reverse)
        return z


def build_stack(model: ModelConfig) -> nn.Module:
    """Build the network inside a coupling, which maps (B, hidden, T), mask and g to (B, hidden, T)."""
    if model.use_transformer_flow:
        return CausalEncoder(
            model.hidden_channels,
            model.filter_channels,
            model.n_heads,
            model.n_layers_trans_flow,
            KERNEL_SIZE,
            model.p_dropout,
            model.gin_channels,
        )
    return WN(
        model.hidden_channels,
        KERNEL_SIZE,
        model.n_flow_layer,
        model.gin_channels,
        depthwise=model.use_depthwise_conv,
    )
