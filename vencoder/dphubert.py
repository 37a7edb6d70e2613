"""DPHuBERT: HuBERT or WavLM with pruned heads, feed-forward widths, whole sublayers and convolution channels.

Y. Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", 2023. No library has
a network whose layers have different widths, so it is implemented here; all sizes are read from the file's tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.console import UserError
from modules.weights.weight_file import Settings, assign, read_weights_and_settings
from vencoder.relative_position import GatedBias
from vencoder.renaming import rename
from vencoder.wave_transformer import HEAD_WIDTH, STRIDES, WaveEncoder, WaveTransformer, normalise, shape_of

NAMES = (
    (r".*\.hard_concrete_for_\w+\..*", None),  # gates of the pruning, unused after it
    (r"feature_extractor\.dummy_weight", r"channel_scale"),
    (r"feature_extractor\.conv_layers\.(.*)", r"convolutions.\1"),
    (r"encoder\.feature_projection\.(layer_norm|projection)\.(.*)", r"feature_projection.\1.\2"),
    (r"encoder\.transformer\.pos_conv_embed\.conv\.(weight_g|weight_v|bias)", r"positions.conv.\1"),
    (r"encoder\.transformer\.layer_norm\.(.*)", r"layer_norm.\1"),
    (r"encoder\.transformer\.layers\.(\d+)\.attention\.((?:gru|rel)_.*)", r"layers.\1.attention.bias.\2"),
    (r"encoder\.transformer\.layers\.(.*)", r"layers.\1"),
)


class DPHubert(WaveEncoder):
    """The output of the last layer."""

    def read(self, path: str | Path, layer: None) -> PrunedNetwork:
        weights, settings = read_weights_and_settings(path, "DPHuBERT", "config")
        _refuse_other_flavours(settings, path)
        weights = _fold_weight_norm(rename(weights, NAMES, path))
        try:
            with torch.device("meta"):
                network = PrunedNetwork(weights, settings)
        except KeyError as error:
            raise UserError(f"{path} lacks the tensor that becomes {error.args[0]}; it is incomplete") from None
        except ValueError as error:
            raise UserError(f"{path} is not a DPHuBERT of a known shape: {error}") from None
        assign(network, weights, path, "DPHuBERT")
        return network


class PrunedNetwork(WaveTransformer):
    """The network of the published pruned models of base size (group norm in front, norms behind each sublayer).

    Args:
        weights: the file's tensors by our names; missing layers were pruned.
        settings: the file's settings, for values that no tensor's shape gives.

    Raises KeyError for a missing tensor, ValueError for shapes that do not fit together.
    """

    def __init__(self, weights: Mapping[str, Tensor], settings: Settings):
        super().__init__()
        self.normalised = settings.get("normalize_waveform", False)
        kernels = [shape_of(weights, f"convolutions.{i}.conv.weight", 3) for i in range(len(STRIDES))]
        self.convolutions = nn.ModuleList(
            _Convolution(*kernel, stride, norm=i == 0, bias=f"convolutions.{i}.conv.bias" in weights)
            for i, (kernel, stride) in enumerate(zip(kernels, STRIDES, strict=True))
        )
        self.channel_scale = nn.Parameter(torch.empty(kernels[-1][0]))
        self.width, channels = shape_of(weights, "feature_projection.projection.weight", 2)
        self.feature_projection = nn.ModuleDict(
            {"layer_norm": nn.LayerNorm(channels), "projection": nn.Linear(channels, self.width)}
        )
        self.positions = _Positions(*shape_of(weights, "positions.conv.weight", 3))
        self.layer_norm = nn.LayerNorm(self.width)
        count = 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("layers.")), default=-1)
        self.layers = nn.ModuleList(_Layer(i, self.width, weights, settings) for i in range(count))

    def convolve(self, audio: Tensor) -> Tensor:
        if self.normalised:
            audio = normalise(audio)
        features = audio[:, None]
        for convolution in self.convolutions:
            features = convolution(features)
        return features.transpose(1, 2) * self.channel_scale

    def project(self, frames: Tensor) -> Tensor:
        """Map the convolutions' output (B, N, D) to (B, N, C)."""
        return self.feature_projection["projection"](self.feature_projection["layer_norm"](frames))

    def hidden_states(self, frames: Tensor) -> list[Tensor]:
        """Return the input of the first layer and the output of each layer: (B, N, C)."""
        projected, bias = self.project(frames), None
        states = [self.layer_norm(projected + self.positions(projected))]
        for layer in self.layers:
            features, bias = layer(states[-1], bias)
            states.append(features)
        return states

    def transform(self, frames: Tensor) -> Tensor:
        return self.hidden_states(frames)[-1]


class _Convolution(nn.Module):
    def __init__(self, outputs: int, inputs: int, kernel: int, stride: int, norm: bool, bias: bool):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        self.layer_norm = nn.GroupNorm(outputs, outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.layer_norm(self.conv(x)))


class _Positions(nn.Module):
    """A wide grouped convolution over time, in place of position embeddings."""

    def __init__(self, width: int, per_group: int, kernel: int):
        super().__init__()
        if width % per_group:
            raise ValueError(f"{width} channels do not divide into groups of {per_group}")
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width // per_group)

    def forward(self, frames: Tensor) -> Tensor:
        return F.gelu(self.conv(frames.transpose(1, 2))[..., : frames.shape[1]]).transpose(1, 2)


class _Layer(nn.Module):
    """Attention and feed-forward, each of which may be pruned; both norms always exist."""

    def __init__(self, index: int, width: int, weights: Mapping[str, Tensor], settings: Settings):
        super().__init__()
        here = f"layers.{index}."
        self.attention = self.feed_forward = None
        if f"{here}attention.q_proj.weight" in weights:
            self.attention = _Attention(index, width, weights, settings)
        if f"{here}feed_forward.intermediate_dense.weight" in weights:
            inner = shape_of(weights, f"{here}feed_forward.intermediate_dense.weight", 2)[0]
            self.feed_forward = nn.ModuleDict(
                {"intermediate_dense": nn.Linear(width, inner), "output_dense": nn.Linear(inner, width)}
            )
        self.layer_norm = nn.LayerNorm(width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.attention is not None:
            attended, bias = self.attention(x, bias)
            x = x + attended
        x = self.layer_norm(x)
        if self.feed_forward is not None:
            x = x + self.feed_forward["output_dense"](F.gelu(self.feed_forward["intermediate_dense"](x)))
        return self.final_layer_norm(x), bias


class _Attention(nn.Module):
    """Self-attention of the remaining heads; for WavLM with a gated bias by relative position."""

    def __init__(self, index: int, width: int, weights: Mapping[str, Tensor], settings: Settings):
        super().__init__()
        inner = shape_of(weights, f"layers.{index}.attention.q_proj.weight", 2)[0]
        if inner % HEAD_WIDTH:
            raise ValueError(f"the heads of layer {index} are {inner} wide, no multiple of {HEAD_WIDTH}")
        self.heads = inner // HEAD_WIDTH
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)
        self.bias = None
        if (gates := f"layers.{index}.attention.bias.gru_rel_pos_const") in weights:
            remaining = _remaining_heads(settings, index, self.heads, total := shape_of(weights, gates, 4)[1])
            table = weights.get(f"layers.{index}.attention.bias.rel_attn_embed.weight")
            buckets = None if table is None else len(table)
            self.bias = GatedBias(width, total, remaining, buckets, settings.get("encoder_max_distance", 800))

    def forward(self, x: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (B, N, C) to the same shape; ``table`` is the bias by position, from the first layer that has it."""
        scores = None
        if self.bias is not None:
            table = self.bias.table(x.shape[1]) if table is None else table
            if table is not None:
                scores = self.bias(x, table)
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, HEAD_WIDTH)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = None if scores is None else scores.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=scores)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), table


def _refuse_other_flavours(settings: Settings, path: Path) -> None:
    for name, published in {"extractor_mode": "group_norm", "encoder_layer_norm_first": False}.items():
        if settings.get(name, published) != published:
            raise UserError(f"{path} is a DPHuBERT of another kind ({name} is {settings.get(name, published)})")


def _fold_weight_norm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the positional convolution's weight from its magnitude (1, 1, K) and direction (C, G, K)."""
    folded = dict(weights)
    magnitude, direction = (folded.pop(f"positions.conv.weight_{letter}", None) for letter in "gv")
    if magnitude is not None and direction is not None and magnitude.shape == (1, 1, *direction.shape[2:]):
        magnitude, direction = magnitude.float(), direction.float()
        folded["positions.conv.weight"] = direction * (magnitude / direction.norm(dim=(0, 1), keepdim=True))
    return folded


def _remaining_heads(settings: Settings, index: int, heads: int, total: int) -> list[int]:
    """Return the indices of a layer's remaining heads. Raises ValueError when they do not fit its tensors."""
    remaining = settings.get("encoder_remaining_heads", [])
    remaining = remaining[index] if index < len(remaining) else list(range(total))
    known = isinstance(remaining, list) and all(type(head) is int and 0 <= head < total for head in remaining)
    if not known or len(remaining) != heads:
        raise ValueError(f"layer {index} has {heads} heads, and its settings name {remaining}")
    return list(remaining)
