"""Transformer blocks over channels-first frames: windowed relative attention, and causal attention.

Shapes: ``(B, C, T)`` between blocks, ``(B, heads, T, C / heads)`` inside attention. Masks are ``(B, 1, T)`` floats,
1 where there is a frame.

Windowed relative positions: Shaw et al., https://arxiv.org/abs/1803.02155, as in VITS, https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.layers.convolution import Conv1d
from modules.layers.wavenet import gated
from modules.layers.weight_norm import WeightNormConv1d

# Without gradients, queries go through attention in groups of rows of at most this many scores per head, so that
# memory does not grow with the square of the length.
MOST_SCORES = 1 << 22


class LayerNorm(nn.Module):
    """Normalisation over the channels of ``(B, C, T)``; parameters ``gamma`` and ``beta``."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta, self.eps).transpose(1, 2)


class SelfAttention(nn.Module):
    """Projections and heads. A subclass implements ``attend``, which chooses the frames that a query attends to."""

    def __init__(self, channels: int, n_heads: int, p_dropout: float = 0.0):
        super().__init__()
        if channels % n_heads:
            raise ValueError(f"channels ({channels}) must be a multiple of n_heads ({n_heads})")
        self.n_heads = n_heads
        self.p_dropout = p_dropout
        self.conv_q = Conv1d(channels, channels, 1)
        self.conv_k = Conv1d(channels, channels, 1)
        self.conv_v = Conv1d(channels, channels, 1)
        self.conv_o = Conv1d(channels, channels, 1)
        for projection in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(projection.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map ``x`` (B, C, T) and ``mask`` (B, 1, T) to (B, C, T)."""
        q, k, v = (self._split_heads(projection(x)) for projection in (self.conv_q, self.conv_k, self.conv_v))
        heads = self.attend(q, k, v, 0, mask) if torch.is_grad_enabled() else self._in_groups(q, k, v, mask)
        return self.conv_o(heads.transpose(2, 3).flatten(1, 2))

    def _in_groups(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        frames = q.shape[2]
        rows = max(1, MOST_SCORES // frames)
        groups = [self.attend(q[:, :, at : at + rows], k, v, at, mask) for at in range(0, frames, rows)]
        return groups[0] if len(groups) == 1 else torch.cat(groups, dim=2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int, mask: Tensor) -> Tensor:
        """Return the heads' outputs (B, heads, rows, d) for the queries of frames ``start`` to ``start + rows``."""
        raise NotImplementedError

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.n_heads, -1, x.shape[2]).transpose(2, 3)


class WindowedSelfAttention(SelfAttention):
    """Attention to every frame, with learned terms for keys and values at most ``window`` frames away.

    score(i, j) = q_i/√d · (k_j + rel_k[j - i]) and output_i = Σ_j p_ij · (v_j + rel_v[j - i]), the relative terms
    being zero outside the window. Per query they cost as much as 2·window + 1 keys, not T.
    """

    def __init__(self, channels: int, n_heads: int, p_dropout: float = 0.0, window: int = 4):
        super().__init__(channels, n_heads, p_dropout)
        self.window = window
        depth = channels // n_heads
        self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * window + 1, depth) * depth**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * window + 1, depth) * depth**-0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int, mask: Tensor) -> Tensor:
        q = q * q.shape[-1] ** -0.5
        near, inside = self._neighbours(q, start, k.shape[2])
        scores = (q @ k.transpose(2, 3)).float()
        scores = scores.scatter_add(3, near, (q @ self.emb_rel_k[0].t()).float() * inside)
        scores = scores.masked_fill(mask.unsqueeze(1) == 0, -1e4)
        weights = F.dropout(scores.softmax(dim=3).to(v.dtype), self.p_dropout, self.training)
        return weights @ v + (weights.gather(3, near) * inside.to(v.dtype)) @ self.emb_rel_v[0]

    def _neighbours(self, q: Tensor, start: int, frames: int) -> tuple[Tensor, Tensor]:
        """Return each query's neighbours as indices (B, heads, rows, 2w + 1), and whether they are in the signal."""
        batch, heads, rows, _ = q.shape
        queries = torch.arange(start, start + rows, device=q.device)
        near = queries[:, None] + torch.arange(-self.window, self.window + 1, device=q.device)
        inside = (near >= 0) & (near < frames)
        return near.clamp(0, frames - 1).expand(batch, heads, -1, -1), inside


class CausalSelfAttention(SelfAttention):
    """Attention to the frame itself and those before it. Padding comes last, so it needs no mask.

    The key projection starts as a copy of the query projection (proximal initialisation), which favours near frames.
    """

    def __init__(self, channels: int, n_heads: int, p_dropout: float = 0.0):
        super().__init__(channels, n_heads, p_dropout)
        self.conv_k.load_state_dict(self.conv_q.state_dict())

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int, mask: Tensor) -> Tensor:
        dropout = self.p_dropout if self.training else 0.0
        end = start + q.shape[2]
        if start == 0:
            return F.scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end], dropout_p=dropout, is_causal=True)
        visible = torch.arange(end, device=q.device) <= torch.arange(start, end, device=q.device)[:, None]
        return F.scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end], visible, dropout)


class FeedForward(nn.Module):
    """Two convolutions with a ReLU between; with ``causal``, no output depends on later frames."""

    def __init__(
        self, channels: int, filter_channels: int, kernel_size: int, p_dropout: float = 0.0, causal: bool = False
    ):
        super().__init__()
        self.p_dropout = p_dropout
        # Symmetric padding needs no copy of the frames; the surplus frames are cut off.
        padding = kernel_size - 1 if causal else kernel_size // 2
        self.surplus = 0 if causal else padding - (kernel_size - 1) // 2
        self.conv_1 = Conv1d(channels, filter_channels, kernel_size, padding=padding)
        self.conv_2 = Conv1d(filter_channels, channels, kernel_size, padding=padding)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        frames = slice(self.surplus, self.surplus + x.shape[2])
        x = self.conv_1(x * mask)[:, :, frames].relu()
        x = F.dropout(x, self.p_dropout, self.training)
        return self.conv_2(x * mask)[:, :, frames] * mask


class RelativeEncoder(nn.Module):
    """A stack of windowed attention and feed-forward blocks, normalised after each residual sum."""

    def __init__(
        self,
        channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        window: int = 4,
    ):
        super().__init__()
        layers = range(n_layers)
        self.p_dropout = p_dropout
        self.attn_layers = nn.ModuleList(WindowedSelfAttention(channels, n_heads, p_dropout, window) for _ in layers)
        self.norm_layers_1 = nn.ModuleList(LayerNorm(channels) for _ in layers)
        self.ffn_layers = nn.ModuleList(FeedForward(channels, filter_channels, kernel_size, p_dropout) for _ in layers)
        self.norm_layers_2 = nn.ModuleList(LayerNorm(channels) for _ in layers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map ``x`` (B, C, T) and ``mask`` (B, 1, T) to (B, C, T), zero where the mask is."""
        x = x * mask
        for attention, norm_1, feed_forward, norm_2 in zip(
            self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True
        ):
            x = norm_1(x + F.dropout(attention(x, mask), self.p_dropout, self.training))
            x = norm_2(x + F.dropout(feed_forward(x, mask), self.p_dropout, self.training))
        return x * mask


class CausalEncoder(nn.Module):
    """As RelativeEncoder, but each frame attends only to itself and earlier frames, without relative positions.

    With ``gin_channels`` a gate before each layer adds the speaker condition, as in the layers of a WN.
    """

    def __init__(
        self,
        channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int | None = None,
    ):
        super().__init__()
        layers = range(n_layers)
        self.p_dropout = p_dropout
        if gin_channels is not None:
            self.cond_pre = Conv1d(channels, 2 * channels, 1)  # shared by all layers, as published
            self.cond_layer = WeightNormConv1d(gin_channels, 2 * channels * n_layers, 1)
        self.self_attn_layers = nn.ModuleList(CausalSelfAttention(channels, n_heads, p_dropout) for _ in layers)
        self.norm_layers_0 = nn.ModuleList(LayerNorm(channels) for _ in layers)
        self.ffn_layers = nn.ModuleList(
            FeedForward(channels, filter_channels, kernel_size, p_dropout, causal=True) for _ in layers
        )
        self.norm_layers_1 = nn.ModuleList(LayerNorm(channels) for _ in layers)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Map ``x`` (B, C, T), ``mask`` (B, 1, T), with gates ``g`` (B, G, 1 or T) to (B, C, T), zero where masked."""
        x = x * mask
        n_layers = len(self.ffn_layers)
        conditions = [None] * n_layers if g is None else self.cond_layer(g).chunk(n_layers, dim=1)
        for condition, attention, norm_0, feed_forward, norm_1 in zip(
            conditions, self.self_attn_layers, self.norm_layers_0, self.ffn_layers, self.norm_layers_1, strict=True
        ):
            if condition is not None:
                x = gated(self.cond_pre(x) + condition)
            x = norm_0(x + F.dropout(attention(x, mask), self.p_dropout, self.training))
            x = norm_1(x + F.dropout(feed_forward(x, mask), self.p_dropout, self.training))
        return x * mask
