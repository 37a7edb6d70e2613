"""WavLM, from Microsoft's checkpoints or transformers' of the base size.

S. Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", 2022.
"""

from __future__ import annotations

import ast
from pathlib import Path

from modules.console import UserError
from modules.weights.weight_file import read_weights_and_settings, read_weights_of
from vencoder.fairseq_names import TO_TRANSFORMERS, WITHIN_TRANSFORMERS
from vencoder.renaming import rename
from vencoder.wave_convolutions import STRIDES
from vencoder.wave_encoder import WaveEncoder
from vencoder.wave_transformer import Variant, WaveTransformer, build_network

NAMES = (
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_linear\.(.*)", r"encoder.layers.\1.attention.gru_rel_pos_linear.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.grep_a", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.(.*)", r"encoder.layers.0.attention.rel_attn_embed.\1"),
    *TO_TRANSFORMERS,
)
CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"  # default for files without this setting
MOST_CONVOLUTIONS = 100
LONGEST_EXPRESSION = 4000  # characters


class WavLM(WaveEncoder):
    """The features of one transformer layer. The waveform is normalised if the checkpoint's settings require it."""

    def read(self, path: str | Path, layer: int) -> WaveTransformer:
        family, weights = read_weights_of(path, "WavLM", "transformers WavLM")
        if family == "transformers WavLM":  # whose default settings are those of the base size
            return build_network(rename(weights, WITHIN_TRANSFORMERS, path), Variant(layer), path, "WavLM")
        weights, settings = read_weights_and_settings(path, "WavLM", "cfg")
        expression = settings.get("conv_feature_layers", CONVOLUTIONS)
        if tuple(stride for *_, stride in convolutions(expression, path)) != STRIDES:
            raise UserError(f"{path} is a WavLM with other convolutions ({expression}); its frames are not 20 ms apart")
        variant = Variant(
            layer,
            pre_norm=settings.get("layer_norm_first", False),
            normalised=settings.get("normalize", False),
            max_distance=settings.get("max_distance", 800),
        )
        return build_network(rename(weights, NAMES, path), variant, path, "WavLM")


def convolutions(expression: str, path: str | Path) -> list[tuple[int, int, int]]:
    """Parse (width, kernel, stride) of each convolution from an expression such as "[(512,10,5)] + [(512,3,2)] * 4".

    Accepts only lists of tuples of three integers, their sums and multiples, and evaluates nothing. Raises UserError
    for any other expression.
    """
    try:
        if len(expression) > LONGEST_EXPRESSION:
            raise ValueError
        return _value(ast.parse(expression, mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        sentence = f"{path} describes its convolutions in a way that is not understood: {expression[:80]!r}"
        raise UserError(sentence) from None


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
