"""Self-attention of the speech encoders, and WavLM's with a bias by relative position, gated by the query frame.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022, section III.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Attention of every frame to every frame. Parameters are named as in the transformers library.

    Args:
        width: C, the number of features.
        heads, head_width: number and width of the heads; pruned networks have fewer than C features in all heads.
        key_bias: whether the projection to keys has a bias.
    """

    def __init__(self, width: int, heads: int, head_width: int, key_bias: bool = True):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.q_proj = nn.Linear(width, heads * head_width)
        self.k_proj = nn.Linear(width, heads * head_width, bias=key_bias)
        self.v_proj = nn.Linear(width, heads * head_width)
        self.out_proj = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map (B, N, C) to the same shape; ``bias`` (B, H, N, N) is added to the scores."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = None if bias is None else bias.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class GatedAttention(Attention):
    """Attention with WavLM's bias.

    Args:
        width, head_width: as for ``Attention``.
        total: number of heads before pruning; each head's gates are computed from its part of the input.
        remaining: indices of the heads after pruning.
        buckets: number of buckets of relative positions if this layer holds their table, else None.
        max_distance: distance in frames from which on all positions share a bucket.
    """

    def __init__(
        self, width: int, head_width: int, total: int, remaining: list[int], buckets: int | None, max_distance: int
    ):
        super().__init__(width, len(remaining), head_width)
        self.total = total
        self.remaining = None if len(remaining) == total else remaining
        self.max_distance = max_distance
        self.gru_rel_pos_const = nn.Parameter(torch.empty(1, total, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(width // total, 8)
        # from_pretrained skips the random values, whose code takes 2 s to import on the meta device.
        table = None if buckets is None else torch.empty(buckets, total)
        self.rel_attn_embed = None if table is None else nn.Embedding.from_pretrained(table)

    def table(self, frames: int) -> Tensor | None:
        """Return the bias before gating, of all heads by position: (total, N, N), or None without a table."""
        if self.rel_attn_embed is None:
            return None
        positions = torch.arange(frames, device=self.rel_attn_embed.weight.device)
        buckets = bucket(positions - positions[:, None], self.rel_attn_embed.num_embeddings, self.max_distance)
        return self.rel_attn_embed(buckets).permute(2, 0, 1).contiguous()

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        """Map (B, N, C) to the same shape; ``table`` (total, N, N) is the first layer's, None if that was pruned."""
        return super().forward(x, None if table is None else self._gated(x, table))

    def _gated(self, x: Tensor, table: Tensor) -> Tensor:
        """Return the bias of the remaining heads' scores (B, H, N, N)."""
        parts = x.unflatten(-1, (self.total, -1)).transpose(1, 2)
        a, b = self.gru_rel_pos_linear(parts).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        gates = a * (b * self.gru_rel_pos_const - 1) + 2
        if self.remaining is not None:
            gates, table = gates[:, self.remaining], table[self.remaining]
        return gates * table


def bucket(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of key minus query position: half for each sign, exact near zero and logarithmic far away."""
    half = buckets // 2
    exact = half // 2
    later = half * (distance > 0)
    distance = distance.abs()
    logarithm = (distance.clamp_min(1).float() / exact).log() / math.log(max_distance / exact)
    far = (exact + logarithm * (half - exact)).long().clamp_max(half - 1)
    return later + torch.where(distance < exact, distance, far)
