"""ONNX graphs run by ONNX Runtime (``requirements-onnx.txt``), on the device that everything else computes on."""

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

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}  # what the inputs of sound and features can be


def import_package(name: str, user: object) -> ModuleType:
    """``onnx`` or ``onnxruntime``. Raises UserError, that ``user`` needs it, when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{user} needs {error.name or name}: pip install -r requirements-onnx.txt") from None


def open_session(path: str | Path, device: torch.device, change: Callable[[Any], Any] | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` of the graph, with as many threads as torch has.

    ``change`` makes of the graph (an ``onnx.ModelProto``) the one that shall run.

    Raises UserError when onnxruntime, or onnx for a ``change``, is not installed, and when the file is no whole graph.
    """
    onnxruntime = import_package("onnxruntime", path)
    onnx = import_package("onnx", path) if change else None
    refuse_other_formats(path, "an ONNX graph")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as each worker has been given
    options.log_severity_level = 3  # errors alone; they are raised as well
    try:
        graph = change(onnx.load(path)).SerializeToString() if change else str(path)
        return onnxruntime.InferenceSession(
            graph, options, providers=providers(device, onnxruntime.get_available_providers())
        )
    except Exception as error:  # onnxruntime has an exception of its own for each kind of damage
        what = f"{path} ({Path(path).stat().st_size:,} bytes) cannot be read as an ONNX graph"
        raise UserError(f"{what}; it may be truncated, get the file anew: {_said(error)}") from None


def run(
    session: Any, path: str | Path, outputs: Sequence[str] | None, values: Mapping[str, np.ndarray], cure: str
) -> list[np.ndarray]:
    """What the graph of the file ``path`` gives: the named outputs, or all of them.

    Raises UserError, which ends with ``cure``, when the graph cannot compute with these values.
    """
    try:
        return session.run(outputs, values)
    except Exception as error:  # one for each kind here too
        raise UserError(f"{path} cannot compute with what it is given ({_said(error)}); {cure}") from None


def _said(error: Exception) -> str:
    """An error's words on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def providers(device: torch.device, available: list[str]) -> list[Any]:
    """What ONNX Runtime shall compute with, best first."""
    cpu = "CPUExecutionProvider"
    if device.type != "cuda":
        return [cpu]
    if "CUDAExecutionProvider" not in available:
        log.warning("this onnxruntime computes on the CPU only; onnxruntime-gpu uses %s", device)
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": device.index or 0}), cpu]
