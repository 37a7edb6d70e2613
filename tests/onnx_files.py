"""Helpers for tests of ONNX graphs: a graph's signature, and a run with given random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.onnx.random_inputs import random_ops_as_inputs

onnx = pytest.importorskip("onnx", reason="onnx is not installed (requirements-onnx.txt)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-onnx.txt)")

Signature = list[tuple[str, str, list[int | str]]]  # name, element type, shape with ? where the length is free


def signature(path: Path) -> tuple[Signature, Signature]:
    """Check a graph and return its inputs and outputs."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 16)]
    return [_describe(one) for one in model.graph.input], [_describe(one) for one in model.graph.output]


def _describe(value) -> tuple[str, str, list[int | str]]:
    kind = value.type.tensor_type
    shape = [axis.dim_value if axis.HasField("dim_value") else "?" for axis in kind.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(kind.elem_type), shape


def run(path: Path, feeds: Mapping[str, Tensor], *random: Tensor) -> Tensor:
    """Return the first output of a graph; ``random`` are the values of its random operations, in order."""
    model = onnx.load(path)
    if random:
        model = random_ops_as_inputs(model)
        feeds = {**feeds, **{f"random_{number}": value for number, value in enumerate(random)}}
    return run_session(open_model(model), feeds)


def open_model(model):
    """Open a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_session(session, feeds: Mapping[str, Tensor]) -> Tensor:
    return torch.from_numpy(session.run(None, {name: np.asarray(value) for name, value in feeds.items()})[0])


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference relative to the largest value."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())
