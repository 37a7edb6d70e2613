"""Write CTranslate2 models, after the format's description in the library's documentation."""

from __future__ import annotations

import struct
from pathlib import Path

import torch
from torch import Tensor

CODES = {torch.float32: 0, torch.int8: 1, torch.float16: 4}


def write_ctranslate2(path: Path, tensors: dict[str, Tensor], kind: str = "WhisperSpec", version: int = 6) -> Path:
    parts = [struct.pack("<I", version), _string(kind), struct.pack("<II", 3, len(tensors))]
    for name, tensor in tensors.items():
        values = tensor.contiguous().numpy().tobytes()
        sizes = struct.pack(f"<B{tensor.dim()}IBI", tensor.dim(), *tensor.shape, CODES[tensor.dtype], len(values))
        parts += [_string(name), sizes, values]
    path.write_bytes(b"".join([*parts, struct.pack("<I", 0)]))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def whisper_tensors(checkpoint: dict, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Return the tensors of a Whisper checkpoint of OpenAI under CTranslate2's names."""
    weights, dims = checkpoint["model_state_dict"], checkpoint["dims"]
    w = {name.removeprefix("encoder."): tensor.to(dtype) for name, tensor in weights.items()}
    found = {
        "decoder/embeddings/weight": torch.zeros(dims["n_vocab"], 1, dtype=dtype),
        "encoder/num_heads": torch.tensor(dims["n_audio_head"], dtype=torch.int8),
        "encoder/position_encodings/encodings": w["positional_embedding"],
        "encoder/layer_norm/gamma": w["ln_post.weight"],
        "encoder/layer_norm/beta": w["ln_post.bias"],
    }
    for conv in ("conv1", "conv2"):
        found |= {f"encoder/{conv}/{part}": w[f"{conv}.{part}"] for part in ("weight", "bias")}
    for i in range(dims["n_audio_layer"]):
        at, old = f"encoder/layer_{i}", f"blocks.{i}"
        attention = [w[f"{old}.attn.{name}.weight"] for name in ("query", "key", "value")]
        query, value = w[f"{old}.attn.query.bias"], w[f"{old}.attn.value.bias"]
        found[f"{at}/self_attention/linear_0/weight"] = torch.cat(attention)
        found[f"{at}/self_attention/linear_0/bias"] = torch.cat([query, torch.zeros_like(query), value])
        linear = {"self_attention/linear_1": "attn.out", "ffn/linear_0": "mlp.0", "ffn/linear_1": "mlp.2"}
        for new, name in linear.items():
            found |= {f"{at}/{new}/{part}": w[f"{old}.{name}.{part}"] for part in ("weight", "bias")}
        for new, name in {"self_attention": "attn_ln", "ffn": "mlp_ln"}.items():
            found[f"{at}/{new}/layer_norm/gamma"] = w[f"{old}.{name}.weight"]
            found[f"{at}/{new}/layer_norm/beta"] = w[f"{old}.{name}.bias"]
    return found
