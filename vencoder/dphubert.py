"""DPHuBERT: HuBERT or WavLM with pruned heads, feed-forward widths, whole sublayers and convolution channels.

Y. Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", 2023.
"""

from __future__ import annotations

from pathlib import Path

from modules.console import UserError
from modules.weights.weight_file import Settings, read_weights_and_settings
from vencoder.renaming import rename
from vencoder.wave_encoder import WaveEncoder
from vencoder.wave_transformer import Variant, WaveTransformer, build_network

NAMES = (
    (r".*\.hard_concrete_for_\w+\..*", None),  # gates of the pruning, unused after it
    (r"feature_extractor\.dummy_weight", r"feature_extractor.channel_scale"),
    (r"(feature_extractor\.conv_layers\..*)", r"\1"),
    (r"encoder\.(feature_projection\.(?:layer_norm|projection)\..*)", r"\1"),
    (r"encoder\.transformer\.pos_conv_embed\.conv\.bias", r"encoder.pos_conv_embed.conv.bias"),
    (r"encoder\.transformer\.pos_conv_embed\.conv\.weight_g",
     r"encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.transformer\.pos_conv_embed\.conv\.weight_v",
     r"encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.transformer\.(layer_norm|layers)\.(.*)", r"encoder.\1.\2"),
)  # fmt: skip


class DPHubert(WaveEncoder):
    """The output of the last layer."""

    def read(self, path: str | Path, layer: None) -> WaveTransformer:
        weights, settings = read_weights_and_settings(path, "DPHuBERT", "config")
        _refuse_other_flavours(settings, path)
        variant = Variant(
            pre_norm=False,
            normalised=settings.get("normalize_waveform", False),
            max_distance=settings.get("encoder_max_distance", 800),
            pruned=True,
            heads=tuple(settings.get("encoder_remaining_heads", [])),
        )
        return build_network(rename(weights, NAMES, path), variant, path, "DPHuBERT")


def _refuse_other_flavours(settings: Settings, path: Path) -> None:
    for name, published in {"extractor_mode": "group_norm", "encoder_layer_norm_first": False}.items():
        if settings.get(name, published) != published:
            raise UserError(f"{path} is a DPHuBERT of another kind ({name} is {settings.get(name, published)})")
