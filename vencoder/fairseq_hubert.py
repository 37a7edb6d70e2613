"""HuBERT networks from checkpoints of fairseq, built on transformers' HubertModel, without fairseq.

HuBERT: W.-N. Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units",
2021. Every size is read from the file's own tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from modules.console import UserError
from modules.torchaudio_guard import import_torchaudio
from modules.weight_file import read_weight_file
from vencoder.renaming import rename

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # samples, of the seven convolutions: 320 together
HEAD_WIDTH = 64  # in every published size of HuBERT; no tensor's shape tells it

TO_TRANSFORMERS = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.0\.2\.(weight|bias)", r"feature_extractor.conv_layers.0.layer_norm.\1"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.(weight|bias)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"layer_norm\.(weight|bias)", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(weight|bias)", r"feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (r"encoder\.pos_conv\.0\.weight_g", r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.layer_norm\.(weight|bias)", r"encoder.layer_norm.\1"),
    (r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(.*)", r"encoder.layers.\1.attention.\2_proj.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(.*)", r"encoder.layers.\1.layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.fc1\.(.*)", r"encoder.layers.\1.feed_forward.intermediate_dense.\2"),
    (r"encoder\.layers\.(\d+)\.fc2\.(.*)", r"encoder.layers.\1.feed_forward.output_dense.\2"),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(.*)", r"encoder.layers.\1.final_layer_norm.\2"),
    (r"final_proj\.(weight|bias)", r"final_proj.\1"),  # a layer of ours, outside the transformers network
    (r"mask_emb", None),  # for masked training only
    (r"label_embs_concat", None),  # the training targets
)


class FairseqHubert(nn.Module):
    """The first layers of a HuBERT, and optionally the projection that its training put on top.

    Args:
        path: a fairseq checkpoint.
        layers: how many transformer layers to keep; the file's layers above are not loaded and cost nothing.
        projected: apply the file's ``final_proj`` to the last of them.

    Raises UserError when the file is no fairseq HuBERT, lacks tensors, has unknown ones, or fewer layers.
    """

    def __init__(self, path: str | Path, layers: int, projected: bool):
        super().__init__()
        weights = rename(read_weight_file(path, "fairseq HuBERT"), TO_TRANSFORMERS, path)
        projection = {name: weights.pop(f"final_proj.{name}", None) for name in ("weight", "bias")}
        weights = {name: tensor for name, tensor in weights.items() if _layer(name) < layers}
        self.hubert = _network(weights, layers, path)
        self.final_proj = _linear(projection, path) if projected else nn.Identity()
        self.width = self.final_proj.out_features if projected else self.hubert.config.hidden_size
        self.eval().requires_grad_(False)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, L) at 16 kHz -> (B, N, C). The waveform is taken as it is, without normalisation."""
        return self.final_proj(self.hubert(audio).last_hidden_state)


@dataclass(frozen=True)
class _Sizes:
    """What the shapes of the file's tensors say, in the words of transformers' HubertConfig."""

    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_bias: bool
    feat_extract_norm: str
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int

    @classmethod
    def read(cls, weights: Mapping[str, Tensor]) -> _Sizes:
        """Raises KeyError naming a tensor that is missing, ValueError for shapes that no HuBERT has."""
        convolutions = [weights[f"feature_extractor.conv_layers.{i}.conv.weight"].shape for i in range(len(STRIDES))]
        hidden, per_group, positions = weights["encoder.pos_conv_embed.conv.parametrizations.weight.original1"].shape
        if hidden % HEAD_WIDTH or hidden % per_group:
            raise ValueError(f"a width of {hidden}, which is no multiple of {HEAD_WIDTH}")
        return cls(
            conv_dim=tuple(width for width, _, _ in convolutions),
            conv_kernel=tuple(kernel for _, _, kernel in convolutions),
            conv_bias="feature_extractor.conv_layers.0.conv.bias" in weights,
            feat_extract_norm="layer" if "feature_extractor.conv_layers.1.layer_norm.weight" in weights else "group",
            hidden_size=hidden,
            intermediate_size=len(weights["encoder.layers.0.feed_forward.intermediate_dense.weight"]),
            num_attention_heads=hidden // HEAD_WIDTH,
            num_conv_pos_embeddings=positions,
            num_conv_pos_embedding_groups=hidden // per_group,
        )


def _network(weights: Mapping[str, Tensor], layers: int, path: str | Path) -> nn.Module:
    import_torchaudio()
    from transformers import HubertConfig, HubertModel

    present = 1 + max((_layer(name) for name in weights), default=-1)
    if present < layers:
        raise UserError(f"{path} has {present} transformer layers; this encoder takes the features of layer {layers}")
    try:
        sizes = _Sizes.read(weights)
    except KeyError as error:
        raise UserError(f"{path} lacks the tensor that becomes {error.args[0]}; it is incomplete") from None
    except ValueError as error:
        raise UserError(f"{path} is not a HuBERT of a known shape: {error}") from None
    config = HubertConfig(
        **vars(sizes),
        conv_stride=STRIDES,
        num_hidden_layers=layers,
        do_stable_layer_norm=sizes.feat_extract_norm == "layer",
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        attn_implementation="sdpa",
    )
    with torch.device("meta"):  # no time is spent on initial values that the file's replace
        network = HubertModel(config)
    _take(network, weights, path)
    parametrize.remove_parametrizations(network.encoder.pos_conv_embed.conv, "weight")
    return network


def _linear(weights: Mapping[str, Tensor | None], path: str | Path) -> nn.Linear:
    if weights["weight"] is None or weights["bias"] is None:
        raise UserError(f"{path} has no final_proj, which this encoder ends with; it is another HuBERT")
    with torch.device("meta"):
        linear = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    _take(linear, weights, path)
    return linear


def _take(module: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Give a module made on the meta device the file's values, as float32 and apart from the mapped file."""
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not expected" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(f"{path} does not hold a whole HuBERT: {'; '.join(wrong[:3])}{more}")
    values = {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
    module.load_state_dict(values, assign=True)


def _layer(name: str) -> int:
    """The index of the transformer layer that a tensor belongs to, -1 for those below the layers."""
    match = re.match(r"encoder\.layers\.(\d+)\.", name)
    return int(match[1]) if match else -1
