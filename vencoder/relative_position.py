"""WavLM's attention bias by relative position, gated by the query frame.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022, section III.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GatedBias(nn.Module):
    """The bias of one layer. Parameters are named as in checkpoints.

    Args:
        width: C, the size of the layer's input.
        total: number of heads before pruning; each head's gates are computed from its part of the input.
        remaining: indices of the heads after pruning.
        buckets: number of buckets of relative positions if this layer holds their table, else None.
        max_distance: distance in frames from which on all positions share a bucket.
    """

    def __init__(self, width: int, total: int, remaining: list[int], buckets: int | None, max_distance: int):
        super().__init__()
        self.total = total
        self.remaining = remaining
        self.max_distance = max_distance
        self.gru_rel_pos_const = nn.Parameter(torch.empty(1, total, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(width // total, 8)
        self.rel_attn_embed = None if buckets is None else nn.Embedding(buckets, total)

    def table(self, frames: int) -> Tensor | None:
        """Return the bias before gating, of all heads by position: (total, N, N), or None without a table."""
        if self.rel_attn_embed is None:
            return None
        positions = torch.arange(frames, device=self.rel_attn_embed.weight.device)
        buckets = bucket(positions - positions[:, None], self.rel_attn_embed.num_embeddings, self.max_distance)
        return self.rel_attn_embed(buckets).permute(2, 0, 1)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Map x (B, N, C) and table (total, N, N) to the bias of the remaining heads' scores (B, H, N, N)."""
        parts = x.unflatten(-1, (self.total, -1))[:, :, self.remaining].transpose(1, 2)
        a, b = self.gru_rel_pos_linear(parts).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        gates = a * (b * self.gru_rel_pos_const[:, self.remaining] - 1) + 2
        return gates * table[self.remaining]


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of key minus query position: half for each sign, exact near zero and logarithmic far away."""
    half = buckets // 2
    exact = half // 2
    later = half * (distance > 0)
    distance = distance.abs()
    logarithm = (distance.clamp_min(1).float() / exact).log() / math.log(max_distance / exact)
    far = (exact + logarithm * (half - exact)).long().clamp_max(half - 1)
    return later + torch.where(distance < exact, distance, far)
