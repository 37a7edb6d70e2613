"""HuBERT-Soft: HuBERT base with soft speech units on top.

B. van Niekerk et al., "A Comparison of Discrete and Soft Speech Units for Improved Voice Conversion", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from modules.weights.weight_file import read_weight_file
from vencoder.renaming import rename
from vencoder.wave_encoder import WaveEncoder
from vencoder.wave_transformer import Variant, WaveTransformer, build_network

PADDING = 40  # samples of silence on each side, so that n hops give n frames
PREFIX = "module."  # prefix of all names after training on several GPUs

TO_TRANSFORMERS = (
    (r"feature_extractor\.conv(\d)\.weight", r"feature_extractor.conv_layers.\1.conv.weight"),
    (r"feature_extractor\.norm0\.(weight|bias)", r"feature_extractor.conv_layers.0.layer_norm.\1"),
    (r"feature_projection\.norm\.(weight|bias)", r"feature_projection.layer_norm.\1"),
    (r"feature_projection\.projection\.(weight|bias)", r"feature_projection.projection.\1"),
    (r"positional_embedding\.conv\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (r"positional_embedding\.conv\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"positional_embedding\.conv\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"norm\.(weight|bias)", r"encoder.layer_norm.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(weight|bias)", r"encoder.layers.\1.attention.\2_proj.\3"),
    (r"encoder\.layers\.(\d+)\.norm1\.(weight|bias)", r"encoder.layers.\1.layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.norm2\.(weight|bias)", r"encoder.layers.\1.final_layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.linear1\.(weight|bias)", r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (r"encoder\.layers\.(\d+)\.linear2\.(weight|bias)", r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (r"proj\.(weight|bias)", r"final_proj.\1"),
    (r"masked_spec_embed", None),  # for masked training only
    (r"label_embedding\.weight", None),  # the training targets
)


class HubertSoft(WaveEncoder):
    """The soft units: the projection of the last transformer layer."""

    padding = PADDING

    def read(self, path: str | Path, layer: int) -> WaveTransformer:
        weights = read_weight_file(path, "HuBERT-Soft")
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
        weights = rename(_split_projections(weights), TO_TRANSFORMERS, path)
        return build_network(weights, Variant(layer, projected=True, padding=PADDING), path, "HuBERT")


def _split_projections(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split ``in_proj``, the rows of the query, key and value projections, in that order."""
    split = {}
    for name, tensor in weights.items():
        if ".in_proj_" in name:
            for letter, rows in zip("qkv", tensor.tensor_split(3), strict=True):
                split[name.replace(".in_proj_", f".{letter}_proj.")] = rows
        else:
            split[name] = tensor
    return split
