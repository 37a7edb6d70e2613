"""For every speech encoder the smallest weight file that its format allows, with random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.checkpoint_files import (
    contentvec_weights,
    dphubert_checkpoint,
    hubertsoft_weights,
    wavlm_checkpoint,
    whisper_checkpoint,
    write_fairseq_checkpoint,
)
from vencoder import ENCODERS

CONTENTVEC = {"layers": 12, "width": 768, "inner": 32, "convolutions": 16}
LARGE = {"layers": 24, "width": 1024, "inner": 32, "convolutions": 16, "large": True}
PYTORCH_KEYS = [key for key, row in ENCODERS.rows.items() if row.weight and not row.weight.endswith(".onnx")]
ONNX_KEYS = [key for key, row in ENCODERS.rows.items() if row.weight and row.weight.endswith(".onnx")]


def write_encoder_file(key: str, folder: Path) -> Path:
    """Write the file of a PyTorch or ONNX key under its own name, in half precision where it is large."""
    row = ENCODERS[key]
    path = folder / row.weight
    folder.mkdir(parents=True, exist_ok=True)
    if key in ONNX_KEYS:
        return write_graph(path, row.ssl_dim, 40 if key.startswith("hubertsoft") else 0)
    if row.target.startswith("vencoder.fairseq_hubert"):
        weights = contentvec_weights(**LARGE if row.layer == LARGE["layers"] else CONTENTVEC)
        return write_fairseq_checkpoint(path, {name: tensor.half() for name, tensor in weights.items()})
    checkpoint = {
        "hubertsoft": lambda: {f"module.{name}": tensor for name, tensor in hubertsoft_weights().items()},
        "whisper-ppg": lambda: whisper_checkpoint(width=1024),
        "whisper-ppg-large": lambda: whisper_checkpoint(width=1280),
        "dphubert": lambda: dphubert_checkpoint(heads=(1, 0, 2), inner=(24, 32, 0)),
        "wavlmbase+": lambda: wavlm_checkpoint(**CONTENTVEC),
    }[key]()
    torch.save(checkpoint, path)
    return path


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
