"""HuBERT and WavLM of all sizes, also pruned: convolutions over the waveform, a transformer over frames.

HuBERT: W.-N. Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
2021. WavLM: S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.console import UserError
from modules.weights.weight_file import assign
from vencoder.attention import Attention, GatedAttention
from vencoder.position_convolution import PositionConvolution
from vencoder.wave_convolutions import STRIDES, WaveConvolutions
from vencoder.weight_shapes import fold_weight_norm, shape_of

HEAD_WIDTH = 64  # in every published network; HuBERT's tensors do not give it
POSITIONS = "encoder.pos_conv_embed.conv"


@dataclass(frozen=True)
class Variant:
    """What the shapes of a network's tensors do not tell.

    Attributes:
        layers: number of transformer layers to keep; None for all.
        projected: whether ``final_proj`` follows the last of them.
        pre_norm: whether norms stand before the sublayers, not behind; None if every convolution has a norm, as then.
        padding: samples of silence on each side of the sound.
        normalised: whether the sound is normalised first.
        max_distance: distance in frames from which on all positions share WavLM's bias.
        pruned: whether sublayers can be missing.
        heads: indices of the heads of each layer that pruning left; layers beyond the list have all.
    """

    layers: int | None = None
    projected: bool = False
    pre_norm: bool | None = None
    padding: int = 0
    normalised: bool = False
    max_distance: int = 800
    pruned: bool = False
    heads: tuple[object, ...] = ()


def build_network(weights: Mapping[str, Tensor], variant: Variant, path: str | Path, family: str) -> WaveTransformer:
    """Build the network with these weights, by the names of the transformers library and ``final_proj``.

    Raises UserError, about the file ``path`` of ``family``, when tensors are missing or unexpected, have impossible
    shapes, or there are fewer layers.
    """
    weights = fold_weight_norm(weights, POSITIONS)
    if variant.layers is not None:
        present = 1 + max((_layer(name) for name in weights), default=-1)
        if present < variant.layers:
            has = f"has {present} transformer layers"
            raise UserError(f"{path} {has}; this encoder takes the features of layer {variant.layers}")
        weights = {name: tensor for name, tensor in weights.items() if _layer(name) < variant.layers}
    if not variant.projected:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("final_proj.")}
    elif not {"final_proj.weight", "final_proj.bias"} <= weights.keys():
        raise UserError(f"{path} has no final_proj, which this encoder ends with; it is another HuBERT")
    try:
        with torch.device("meta"):  # skips the initialisation, which the file's weights replace
            network = WaveTransformer(weights, variant)
    except KeyError as error:
        raise UserError(f"{path} lacks the tensor that becomes {error.args[0]}; it is incomplete") from None
    except ValueError as error:
        raise UserError(f"{path} is not a {family} of a known shape: {error}") from None
    assign(network, weights, path, family)
    return network


class WaveTransformer(nn.Module):
    """The network. ``width`` is the number of output features.

    All audio of a batch has the same length, because the norm over time in the first convolution depends on padding.

    Args:
        weights: tensors by name, of which only the shapes are used.
        variant: the rest.

    Raises KeyError naming a tensor that is missing, ValueError for shapes that do not fit together.
    """

    def __init__(self, weights: Mapping[str, Tensor], variant: Variant):
        super().__init__()
        self.variant = variant
        self.feature_extractor = _convolutions(weights)
        width, channels = shape_of(weights, "feature_projection.projection.weight", 2)
        self.feature_projection = FeatureProjection(channels, width)
        self.encoder = Encoder(width, weights, variant)
        self.final_proj, self.width = nn.Identity(), width
        if variant.projected:
            self.width, inputs = shape_of(weights, "final_proj.weight", 2)
            self.final_proj = nn.Linear(inputs, self.width)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, L) at 16 kHz to (B, N, C)."""
        return self.transform(self.convolve(audio))

    def convolve(self, audio: Tensor) -> Tensor:
        """Map (B, L) to (B, N, D)."""
        if self.variant.normalised:
            audio = normalise(audio)
        return self.feature_extractor(F.pad(audio, (self.variant.padding,) * 2))

    def project(self, frames: Tensor) -> Tensor:
        """Map the convolutions' output (B, N, D) to (B, N, C)."""
        return self.feature_projection(frames)

    def hidden_states(self, frames: Tensor) -> list[Tensor]:
        """Return the input of the first layer and the output of each layer for frames (B, N, D): (B, N, C)."""
        return self.encoder.hidden_states(self.project(frames))

    def transform(self, frames: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, C)."""
        return self.final_proj(self.encoder(self.project(frames)))


class FeatureProjection(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, width)

    def forward(self, frames: Tensor) -> Tensor:
        return self.projection(self.layer_norm(frames))


class Encoder(nn.Module):
    """The transformer: (B, N, C) -> (B, N, C). Its norm comes first, or with norms before the sublayers last."""

    def __init__(self, width: int, weights: Mapping[str, Tensor], variant: Variant):
        super().__init__()
        self.pos_conv_embed = PositionConvolution(*shape_of(weights, f"{POSITIONS}.weight", 3))
        self.layer_norm = nn.LayerNorm(width)
        self.pre_norm = _has_layer_norms(weights) if variant.pre_norm is None else variant.pre_norm
        layers = {_layer(name) for name in weights} - {-1}
        self.layers = nn.ModuleList(
            Layer(
                _attention(index, width, weights, variant),
                _feed_forward(index, width, weights, variant),
                width,
                self.pre_norm,
            )
            for index in range(len(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        last = self.hidden_states(x)[-1]
        return self.layer_norm(last) if self.pre_norm else last

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        x = x + self.pos_conv_embed(x)
        states, table = [x if self.pre_norm else self.layer_norm(x)], self._table(x.shape[1])
        for layer in self.layers:
            states.append(layer(states[-1], table))
        return states

    def _table(self, frames: int) -> Tensor | None:
        """Return WavLM's bias by position, which the first layer holds for all."""
        first = self.layers[0].attention if self.layers else None
        return first.table(frames) if isinstance(first, GatedAttention) else None


class Layer(nn.Module):
    """Attention and feed-forward, each of which may be pruned; both norms always exist."""

    def __init__(self, attention: Attention | None, feed_forward: FeedForward | None, width: int, pre_norm: bool):
        super().__init__()
        self.attention, self.feed_forward, self.pre_norm = attention, feed_forward, pre_norm
        self.layer_norm = nn.LayerNorm(width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, table: Tensor | None) -> Tensor:
        if self.attention is not None:
            x = x + self.attention(self.layer_norm(x) if self.pre_norm else x, table)
        x = x if self.pre_norm else self.layer_norm(x)
        if self.feed_forward is not None:
            x = x + self.feed_forward(self.final_layer_norm(x) if self.pre_norm else x)
        return x if self.pre_norm else self.final_layer_norm(x)


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.intermediate_dense = nn.Linear(width, inner)
        self.output_dense = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


def normalise(audio: Tensor) -> Tensor:
    """Normalise (B, L) to zero mean and unit variance; ``layer_norm`` cannot be exported to graphs of any length."""
    centred = audio - audio.mean(dim=1, keepdim=True)
    return centred * (centred.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()


def _convolutions(weights: Mapping[str, Tensor]) -> WaveConvolutions:
    names = [f"feature_extractor.conv_layers.{index}.conv" for index in range(len(STRIDES))]
    return WaveConvolutions(
        shapes=[shape_of(weights, f"{name}.weight", 3) for name in names],
        biases=[f"{name}.bias" in weights for name in names],
        norm="layer" if _has_layer_norms(weights) else "group",
        scaled="feature_extractor.channel_scale" in weights,
    )


def _has_layer_norms(weights: Mapping[str, Tensor]) -> bool:
    """Return whether every convolution has a norm, as in large networks."""
    return "feature_extractor.conv_layers.1.layer_norm.weight" in weights


def _attention(index: int, width: int, weights: Mapping[str, Tensor], variant: Variant) -> Attention | None:
    prefix = f"encoder.layers.{index}.attention"
    if variant.pruned and f"{prefix}.q_proj.weight" not in weights:
        return None
    inner = shape_of(weights, f"{prefix}.q_proj.weight", 2)[0]
    if inner % HEAD_WIDTH:
        raise ValueError(f"the heads of layer {index} are {inner} wide, no multiple of {HEAD_WIDTH}")
    heads, gates = inner // HEAD_WIDTH, f"{prefix}.gru_rel_pos_const"
    if gates not in weights:
        return Attention(width, heads, HEAD_WIDTH)
    total = shape_of(weights, gates, 4)[1]
    remaining = _remaining_heads(variant, index, heads, total)
    buckets = shape_of(weights, f"{prefix}.rel_attn_embed.weight", 2)[0] if index == 0 else None
    return GatedAttention(width, HEAD_WIDTH, total, remaining, buckets, variant.max_distance)


def _remaining_heads(variant: Variant, index: int, heads: int, total: int) -> list[int]:
    """Return the indices of a layer's remaining heads. Raises ValueError when they do not fit its tensors."""
    remaining = variant.heads[index] if index < len(variant.heads) else list(range(total))
    known = isinstance(remaining, list) and all(type(head) is int and 0 <= head < total for head in remaining)
    if not known or len(remaining) != heads:
        raise ValueError(f"layer {index} has {heads} heads, and its settings name {remaining}")
    return list(remaining)


def _feed_forward(index: int, width: int, weights: Mapping[str, Tensor], variant: Variant) -> FeedForward | None:
    name = f"encoder.layers.{index}.feed_forward.intermediate_dense.weight"
    if variant.pruned and name not in weights:
        return None
    return FeedForward(width, shape_of(weights, name, 2)[0])


def _layer(name: str) -> int:
    """Return the index of a tensor's transformer layer, -1 if it belongs to none."""
    match = re.match(r"encoder\.layers\.(\d+)\.", name)
    return int(match[1]) if match else -1
