"""The smallest weight file of each speech encoder that its format allows, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.checkpoint_files import (
    contentvec_weights,
    dphubert_checkpoint,
    hubertsoft_weights,
    wavlm_checkpoint,
    whisper_checkpoint,
    write_fairseq_checkpoint,
)
from vencoder import ENCODERS

PYTORCH_KEYS = [key for key, row in ENCODERS.rows.items() if row.weight and not row.weight.endswith(".onnx")]
ONNX_KEYS = [key for key, row in ENCODERS.rows.items() if row.weight and row.weight.endswith(".onnx")]

# The smallest sizes, and those of the published files (for DPHuBERT, similar ones).
BASE = {"layers": 12, "width": 768, "inner": 32, "convolutions": 16}
LARGE = {"layers": 24, "width": 1024, "inner": 32, "convolutions": 16}
PRUNED = {"heads": (1, 0, 2), "inner": (24, 32, 0)}
PUBLISHED = {"convolutions": 512, "positions": 128}
PUBLISHED_BASE = BASE | PUBLISHED | {"inner": 3072}
PUBLISHED_LARGE = LARGE | PUBLISHED | {"inner": 4096}
PUBLISHED_POSITIONS = {"buckets": 320, "max_distance": 800}
PUBLISHED_PRUNED = {
    "heads": (3, 4, 0, 2, 5, 6, 7, 5, 4, 3, 0, 2),
    "inner": (514, 640, 702, 655, 811, 720, 0, 780, 690, 611, 570, 410),
    "convolutions": (346, 401, 409, 411, 374, 388, 364),
    "positions": 128,
}


def write_encoder_file(key: str, folder: Path, published: bool = False) -> Path:
    """Write the file of a PyTorch or ONNX key under its own name, of the ``published`` sizes or the smallest."""
    row = ENCODERS[key]
    path = folder / row.weight
    folder.mkdir(parents=True, exist_ok=True)
    if key in ONNX_KEYS:
        return write_graph(path, row.ssl_dim, 40 if key.startswith("hubertsoft") else 0)
    base = PUBLISHED_BASE if published else BASE
    if row.target.startswith("vencoder.fairseq_hubert"):
        large = row.ssl_dim == LARGE["width"]
        sizes = (PUBLISHED_LARGE if published else LARGE) if large else base
        return write_fairseq_checkpoint(path, _halves(contentvec_weights(**sizes, large=large)))
    if row.target.startswith("vencoder.whisper"):
        layers = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}[row.ssl_dim] if published else row.layer or 1
        checkpoint = whisper_checkpoint(0, row.ssl_dim, layers, inner=4 * row.ssl_dim if published else 64)
        checkpoint["dims"]["n_vocab"] -= key.endswith(".en")
    elif key == "hubertsoft":
        weights = hubertsoft_weights(**PUBLISHED_BASE if published else {})
        checkpoint = {f"module.{name}": tensor for name, tensor in weights.items()}
    elif key == "dphubert":
        checkpoint = dphubert_checkpoint(**PUBLISHED_PRUNED if published else PRUNED)
    else:
        checkpoint = wavlm_checkpoint(**PUBLISHED_POSITIONS if published else {}, **base)
    torch.save(checkpoint, path)
    return path


def _halves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in weights.items()}


def write_graph(path: Path, width: int, padding: int = 0, names: tuple[str, str] = ("source", "embed")) -> Path:
    """An ONNX graph that is one convolution of 25 ms every 20 ms: (1, 1, L) -> (1, N, width)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel = torch.randn(width, 1, 400, generator=torch.Generator().manual_seed(width)) / 20
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [names[0], "kernel"], ["c"], strides=[320], pads=[padding, padding]),
            helper.make_node("Transpose", ["c"], [names[1]], perm=[0, 2, 1]),
        ],
        "encoder",
        [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, [1, 1, "length"])],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [1, "frames", width])],
        [numpy_helper.from_array(kernel.numpy(), "kernel")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
