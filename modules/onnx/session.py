"""Run ONNX graphs with ONNX Runtime (``requirements-onnx.txt``) on the device of the other networks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from modules.console import UserError, get_logger
from modules.weights.weight_file import refuse_other_formats

log = get_logger("onnx")

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # allowed types of audio and feature inputs


def import_package(name: str, user: object) -> ModuleType:
    """Import ``onnx`` or ``onnxruntime``. Raises UserError that ``user`` needs it when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{user} needs {error.name or name}: pip install -r requirements-onnx.txt") from None


def open_session(path: str | Path, device: torch.device, change: Callable[[Any], Any] | None = None) -> Any:
    """Open an ``onnxruntime.InferenceSession`` of the graph, with as many threads as torch uses.

    ``change`` modifies the graph (an ``onnx.ModelProto``) before it is loaded.

    Raises UserError when onnxruntime, or onnx for a ``change``, is not installed, and when the file is damaged or not a
    graph.
    """
    onnxruntime = import_package("onnxruntime", path)
    onnx = import_package("onnx", path) if change else None
    refuse_other_formats(path, "an ONNX graph")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # the number of threads per worker
    options.log_severity_level = 3  # only errors, which are raised as well
    try:
        graph = change(onnx.load(path)).SerializeToString() if change else str(path)
        return onnxruntime.InferenceSession(
            graph, options, providers=providers(device, onnxruntime.get_available_providers())
        )
    except Exception as error:  # onnxruntime has one exception class per kind of damage
        what = f"{path} ({Path(path).stat().st_size:,} bytes) cannot be read as an ONNX graph"
        raise UserError(f"{what}; it may be truncated, get the file again: {_one_line(error)}") from None


def run(
    session: Any, path: str | Path, outputs: Sequence[str] | None, values: Mapping[str, np.ndarray], cure: str
) -> list[np.ndarray]:
    """Run the graph of the file ``path`` and return the named outputs, or all of them.

    Raises UserError, ending with ``cure``, when the graph fails on these values.
    """
    try:
        return session.run(outputs, values)
    except Exception as error:  # here too: one class per kind
        raise UserError(f"{path} cannot process its input ({_one_line(error)}); {cure}") from None


def _one_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def providers(device: torch.device, available: list[str]) -> list[Any]:
    """Return the execution providers for ONNX Runtime, best first."""
    cpu = "CPUExecutionProvider"
    if device.type != "cuda":
        return [cpu]
    if "CUDAExecutionProvider" not in available:
        log.warning("this onnxruntime computes on the CPU only; onnxruntime-gpu uses %s", device)
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), cpu]
