"""WavLM, from the checkpoints that Microsoft publishes.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022.
"""

from __future__ import annotations

import ast
from pathlib import Path

import torch
from torch import Tensor

from modules.console import UserError
from modules.weight_file import read_weights_and_settings
from vencoder.fairseq_names import TO_TRANSFORMERS
from vencoder.hubert_network import STRIDES, HubertNetwork
from vencoder.wave_transformer import WaveEncoder
from vencoder.weights import rename

NAMES = (
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.(weight|bias)", r"encoder.layers.\1.attention.gru_rel_pos_linear.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight", r"encoder.layers.0.attention.rel_attn_embed.weight"),
    *TO_TRANSFORMERS,
)
MOST_CONVOLUTIONS = 100


class WavLM(WaveEncoder):
    """The features of one transformer layer. The waveform is normalised where the checkpoint's settings say so."""

    def read(self, path: str | Path, layer: int) -> HubertNetwork:
        weights, settings = read_weights_and_settings(path, "WavLM", "cfg")
        expression = settings.get("conv_feature_layers")
        if expression is not None and tuple(stride for *_, stride in convolutions(expression, path)) != STRIDES:
            raise UserError(f"{path} is a WavLM with other convolutions ({expression}); its frames are not 20 ms apart")
        network = _MaybeNormalised(
            rename(weights, NAMES, path),
            layer,
            False,
            path,
            max_bucket_distance=int(settings.get("max_distance", 800)),
            do_stable_layer_norm=bool(settings.get("layer_norm_first", False)),
        )
        network.normalised = bool(settings.get("normalize", False))
        return network


class _MaybeNormalised(HubertNetwork):
    normalised = False

    def convolve(self, audio: Tensor) -> Tensor:
        if self.normalised:
            audio = torch.nn.functional.layer_norm(audio, audio.shape[1:])
        return super().convolve(audio)


def convolutions(expression: str, path: str | Path) -> list[tuple[int, int, int]]:
    """(width, kernel, stride) of each, from what the file writes as "[(512,10,5)] + [(512,3,2)] * 4".

    Only lists of three whole numbers, their sums and their multiples are understood; nothing is evaluated. Raises
    UserError for any other expression.
    """
    try:
        return _value(ast.parse(str(expression), mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        text = str(expression)[:80]
        raise UserError(f"{path} describes its convolutions in a way that is not understood: {text!r}") from None


def _value(node: ast.expr) -> list[tuple[int, int, int]]:
    match node:
        case ast.List(elts=items):
            layers = [ast.literal_eval(item) for item in items]
            if not all(isinstance(one, tuple) and len(one) == 3 and all(type(n) is int for n in one) for one in layers):
                raise ValueError("not three whole numbers")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            layers = _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if times <= MOST_CONVOLUTIONS:
            layers = _value(left) * times
        case _:
            raise ValueError("neither a list nor a sum or multiple of lists")
    if len(layers) > MOST_CONVOLUTIONS:
        raise ValueError("too many")
    return layers
