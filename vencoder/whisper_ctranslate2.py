"""Convert a Whisper of CTranslate2 (faster-whisper's format) to the checkpoint that the encoders read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.atomic_file import atomic_path
from modules.console import UserError
from modules.weights.ctranslate2_file import read_ctranslate2
from vencoder.renaming import rename

TO_OPENAI = (
    (r"encoder/conv([12])/(weight|bias)", r"encoder.conv\1.\2"),
    (r"encoder/position_encodings/encodings", r"encoder.positional_embedding"),
    (r"encoder/layer_(\d+)/self_attention/(query|key|value)/(weight|bias)", r"encoder.blocks.\1.attn.\2.\3"),
    (r"encoder/layer_(\d+)/self_attention/linear_1/(weight|bias)", r"encoder.blocks.\1.attn.out.\2"),
    (r"encoder/layer_(\d+)/self_attention/layer_norm/gamma", r"encoder.blocks.\1.attn_ln.weight"),
    (r"encoder/layer_(\d+)/self_attention/layer_norm/beta", r"encoder.blocks.\1.attn_ln.bias"),
    (r"encoder/layer_(\d+)/ffn/linear_0/(weight|bias)", r"encoder.blocks.\1.mlp.0.\2"),
    (r"encoder/layer_(\d+)/ffn/linear_1/(weight|bias)", r"encoder.blocks.\1.mlp.2.\2"),
    (r"encoder/layer_(\d+)/ffn/layer_norm/gamma", r"encoder.blocks.\1.mlp_ln.weight"),
    (r"encoder/layer_(\d+)/ffn/layer_norm/beta", r"encoder.blocks.\1.mlp_ln.bias"),
    (r"encoder/layer_norm/gamma", r"encoder.ln_post.weight"),
    (r"encoder/layer_norm/beta", r"encoder.ln_post.bias"),
    (r"encoder/num_heads|decoder/.*", None),
)


def convert_whisper(model: str | Path, checkpoint: str | Path) -> None:
    """Write the encoder of a CTranslate2 Whisper, ``model.bin``, as OpenAI's checkpoint, in its stored precision.

    Raises UserError if the file is damaged, is no Whisper, or is quantised to 8 bits.
    """
    kind, tensors = read_ctranslate2(model)
    if kind != "WhisperSpec":
        raise UserError(f"{model} is no Whisper of CTranslate2: it is a {kind}")
    if any(name.endswith("weight_scale") for name in tensors):
        raise UserError(f"{model} is quantised to 8 bits; get one in float16 or float32")
    try:
        weights = rename(_split_attention(tensors), TO_OPENAI, model)
        width, bands = tensors["encoder/conv1/weight"].shape[:2]
        dims = {
            "n_mels": bands,
            "n_audio_ctx": len(weights["encoder.positional_embedding"]),
            "n_audio_state": width,
            "n_audio_head": int(tensors["encoder/num_heads"]),
            "n_audio_layer": sum(name.endswith("attn_ln.weight") for name in weights),
            "n_vocab": len(tensors["decoder/embeddings/weight"]),
        }
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{model} lacks tensors of a Whisper ({error}); fetch it again") from None
    with atomic_path(checkpoint) as temporary:
        torch.save({"dims": dims, "model_state_dict": weights}, temporary)


def _split_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with query, key and value apart, which CTranslate2 stores in one; the key has no bias."""
    split = {}
    for name, tensor in tensors.items():
        start, is_joint, end = name.partition("self_attention/linear_0/")
        if not (is_joint and name.startswith("encoder/")):
            split[name] = tensor
            continue
        for part, values in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
            if (part, end) != ("key", "bias"):
                split[f"{start}self_attention/{part}/{end}"] = values.clone()
    return split
