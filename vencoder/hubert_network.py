"""HuBERT and WavLM of transformers, built from weights under its names; all sizes are read from the weights.

HuBERT: W.-N. Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
2021. WavLM: S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from modules.audio.torchaudio_guard import import_torchaudio
from modules.console import UserError
from modules.weights.weight_file import assign
from vencoder.wave_transformer import HEAD_WIDTH, STRIDES, WaveTransformer, shape_of

GATES = "encoder.layers.0.attention.gru_rel_pos_const"  # (1, heads, 1, 1), only in WavLM
BUCKETS = "encoder.layers.0.attention.rel_attn_embed.weight"  # (buckets, heads), only in WavLM


class HubertNetwork(WaveTransformer):
    """The first layers of a HuBERT or WavLM, and optionally its final projection.

    Args:
        weights: tensors by transformers' names, and ``final_proj``, which is outside its network.
        layers: number of transformer layers to keep.
        projected: apply ``final_proj`` to the last of them.
        path: the weights' file, for errors.
        settings: values that no shape gives, by the names of transformers' configuration.

    Raises UserError when tensors are missing or unexpected, have impossible shapes, or there are fewer layers.
    """

    def __init__(self, weights: Mapping[str, Tensor], layers: int, projected: bool, path: str | Path, **settings: Any):
        super().__init__()
        rest = {name: tensor for name, tensor in weights.items() if not name.startswith("final_proj.")}
        present = 1 + max((_layer(name) for name in rest), default=-1)
        if present < layers:
            has = f"has {present} transformer layers"
            raise UserError(f"{path} {has}; this encoder takes the features of layer {layers}")
        kept = {name: tensor for name, tensor in rest.items() if _layer(name) < layers}
        self.hubert = _network(kept, {"num_hidden_layers": layers, **settings}, path)
        self.final_proj = _projection(weights, path) if projected else nn.Identity()
        self.width = self.final_proj.out_features if projected else self.hubert.config.hidden_size

    def convolve(self, audio: Tensor) -> Tensor:
        return self.hubert.feature_extractor(audio).transpose(1, 2)

    def project(self, frames: Tensor) -> Tensor:
        """Map the convolutions' output (B, N, D) to (B, N, C) for the transformer."""
        projected = self.hubert.feature_projection(frames)
        return projected[0] if isinstance(projected, tuple) else projected  # WavLM also returns its normalised input

    def transform(self, frames: Tensor) -> Tensor:
        return self.final_proj(self.hubert.encoder(self.project(frames)).last_hidden_state)


def _network(weights: Mapping[str, Tensor], settings: dict[str, Any], path: str | Path) -> nn.Module:
    import_torchaudio()
    from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel

    config_class, model_class = (WavLMConfig, WavLMModel) if GATES in weights else (HubertConfig, HubertModel)
    try:
        sizes = _sizes(weights)
    except KeyError as error:
        raise UserError(f"{path} lacks the tensor that becomes {error.args[0]}; it is incomplete") from None
    except ValueError as error:
        raise UserError(f"{path} is not a HuBERT of a known shape: {error}") from None
    config = config_class(
        **{"do_stable_layer_norm": sizes["feat_extract_norm"] == "layer"} | sizes | settings,
        conv_stride=STRIDES,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        **{} if GATES in weights else {"attn_implementation": "sdpa"},
    )
    with torch.device("meta"):  # skips the initialisation, which the file's weights replace
        network = model_class(config)
    assign(network, weights, path, "WavLM" if GATES in weights else "HuBERT")
    parametrize.remove_parametrizations(network.encoder.pos_conv_embed.conv, "weight")
    return network


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the sizes from the tensors' shapes, by the names of transformers' configuration.

    Raises KeyError naming a tensor that is missing, ValueError for shapes that no HuBERT has.
    """
    convolutions = [shape_of(weights, f"feature_extractor.conv_layers.{i}.conv.weight", 3) for i in range(len(STRIDES))]
    weight_v = "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    hidden, per_group, positions = shape_of(weights, weight_v, 3)
    heads = shape_of(weights, GATES, 4)[1] if GATES in weights else hidden // HEAD_WIDTH
    if not heads or hidden % heads or hidden % per_group:
        raise ValueError(f"a width of {hidden}, which does not divide into its heads or groups")
    sizes = {
        "conv_dim": tuple(width for width, _, _ in convolutions),
        "conv_kernel": tuple(kernel for _, _, kernel in convolutions),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in weights,
        "feat_extract_norm": "layer" if "feature_extractor.conv_layers.1.layer_norm.weight" in weights else "group",
        "hidden_size": hidden,
        "intermediate_size": len(weights["encoder.layers.0.feed_forward.intermediate_dense.weight"]),
        "num_attention_heads": heads,
        "num_conv_pos_embeddings": positions,
        "num_conv_pos_embedding_groups": hidden // per_group,
    }
    return sizes | ({"num_buckets": shape_of(weights, BUCKETS, 2)[0]} if GATES in weights else {})


def _projection(weights: Mapping[str, Tensor], path: str | Path) -> nn.Linear:
    values = {name: weights.get(f"final_proj.{name}") for name in ("weight", "bias")}
    if values["weight"] is None or values["bias"] is None or values["weight"].dim() != 2:
        raise UserError(f"{path} has no final_proj, which this encoder ends with; it is another HuBERT")
    with torch.device("meta"):
        linear = nn.Linear(*reversed(values["weight"].shape))
    assign(linear, values, path, "projection")
    return linear


def _layer(name: str) -> int:
    """Return the index of a tensor's transformer layer, -1 if it belongs to none."""
    match = re.match(r"encoder\.layers\.(\d+)\.", name)
    return int(match[1]) if match else -1
