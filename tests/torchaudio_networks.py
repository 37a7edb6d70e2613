"""torchaudio's HuBERT and WavLM with the weights of our test files, as independent implementations."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modules.audio.torchaudio_guard import import_torchaudio
from tests.checkpoint_files import KERNELS

STRIDES = (5, 2, 2, 2, 2, 2, 2)
FROM_FAIRSEQ = (  # beginnings and parts of names, applied in this order
    (r"(conv_layers\.\d)\.0\.(weight|bias)", r"\1.conv.\2"),
    (r"(conv_layers\.\d)\.2(?:\.1)?\.", r"\1.layer_norm."),
    (r"^layer_norm", "encoder.feature_projection.layer_norm"),
    (r"^post_extract_proj", "encoder.feature_projection.projection"),
    (r"^encoder\.(pos_conv|layer)", r"encoder.transformer.\1"),
    (r"pos_conv\.0", "pos_conv_embed.conv"),
    (r"self_attn_layer_norm", "layer_norm"),
    (r"self_attn\.relative_attention_bias", "attention.rel_attn_embed"),
    (r"self_attn\.grep_linear", "attention.gru_rel_pos_linear"),
    (r"self_attn\.grep_a", "attention.gru_rel_pos_const"),
    (r"self_attn", "attention"),
    (r"fc1", "feed_forward.intermediate_dense"),
    (r"fc2", "feed_forward.output_dense"),
)


def from_fairseq(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename fairseq's (and Microsoft's) parameters to torchaudio's."""
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in FROM_FAIRSEQ:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def torchaudio_network(weights: Mapping[str, Tensor], large: bool = False, max_distance: int = 0) -> nn.Module:
    """The network of these sizes with these weights, by torchaudio's names: WavLM with ``max_distance``, else HuBERT.

    ``large``: layer norm in every convolution and before each sublayer.
    """
    models = import_torchaudio().models
    prefix = "encoder.transformer."
    width = len(weights["encoder.feature_projection.projection.weight"])
    channels = [len(weights[f"feature_extractor.conv_layers.{i}.conv.weight"]) for i in range(len(KERNELS))]
    layers = len({name.split(".")[3] for name in weights if name.startswith(f"{prefix}layers.")})
    sizes = {
        "extractor_mode": "layer_norm" if large else "group_norm",
        "extractor_conv_layer_config": list(zip(channels, KERNELS, STRIDES, strict=True)),
        "extractor_conv_bias": False,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.0,
        "encoder_pos_conv_kernel": weights[f"{prefix}pos_conv_embed.conv.weight_v"].shape[2],
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": layers,
        "encoder_num_heads": width // 64,
        "encoder_attention_dropout": 0.0,
        "encoder_ff_interm_features": len(weights[f"{prefix}layers.0.feed_forward.intermediate_dense.weight"]),
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.0,
        "encoder_layer_norm_first": large,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }
    if max_distance:
        buckets = len(weights[f"{prefix}layers.0.attention.rel_attn_embed.weight"])
        network = models.wavlm_model(**sizes, encoder_num_buckets=buckets, encoder_max_distance=max_distance)
    else:
        network = models.wav2vec2_model(**sizes)
    network.eval().load_state_dict(_their_layout(weights, network.state_dict()))
    return network


def _their_layout(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weight norm and, in WavLM, the three projections for the installed torchaudio."""
    own = {}
    for name, tensor in weights.items():
        parametrized = name.replace("weight_g", "parametrizations.weight.original0")
        parametrized = parametrized.replace("weight_v", "parametrizations.weight.original1")
        own[parametrized if parametrized in wanted else name] = tensor
    for name in wanted:
        if ".attention.attention.in_proj_" in name:
            start, kind = name.split("attention.in_proj_")
            own[name] = torch.cat([own.pop(f"{start}{letter}_proj.{kind}") for letter in "qkv"])
        elif ".attention.attention.out_proj" in name:
            own[name] = own.pop(name.replace("attention.attention.", "attention."))
    return own
