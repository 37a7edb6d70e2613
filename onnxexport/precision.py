"""Graphs of smaller precision, and the error that it causes."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from modules.console import get_logger
from modules.onnx.session import import_package

# Other nodes stay float32: half precision is too coarse for the sine source and the pitch.
HEAVY = ("Conv", "ConvTranspose", "MatMul", "Gemm")

MAX_HALF = float(np.finfo(np.float16).max)

log = get_logger("onnx")


def reduce_precision(model: Any, precision: str, examples: Mapping[str, Tensor], name: str) -> Any:
    """Reduce the graph to a key of PRECISIONS and check it; logs the error on the examples under ``name``.

    Raises UserError if onnxruntime is not installed.
    """
    import_package("onnxruntime", f"precision {precision}")
    smaller = PRECISIONS[precision](model)
    import_package("onnx", f"precision {precision}").checker.check_model(smaller, full_check=True)
    feeds = {name: tensor.numpy() for name, tensor in examples.items()}
    for output, exact, found in zip(model.graph.output, run(model, feeds), run(smaller, feeds), strict=True):
        error = relative_error(found, exact)
        log.info("%s: in %s, '%s' is off by %.1e of its size", name, precision, output.name, error)
    return smaller


def halve(model: Any) -> Any:
    """Convert convolutions and products that have weights to half precision; inputs and outputs stay float32.

    Each is computed between two casts. Hosts with half precision remove the casts. Others compute in float32, from
    weights of half the size.
    """
    from onnx import TensorProto, helper, numpy_helper

    halved = copy.deepcopy(model)
    graph = halved.graph
    weights = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
    heavy = [node for node in graph.node if node.op_type in HEAVY and node.input[1] in weights]
    nodes, halves = [], {}
    for node in graph.node:
        if node not in heavy:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name not in halves:
                halves[name] = f"{name}_half"
                if name in weights:
                    values = np.clip(numpy_helper.to_array(weights[name]), -MAX_HALF, MAX_HALF)
                    graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), halves[name]))
                else:
                    nodes.append(helper.make_node("Cast", [name], [halves[name]], halves[name], to=TensorProto.FLOAT16))
            node.input[index] = halves[name]
        (name,) = node.output
        node.output[0] = f"{name}_in_half"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [name], f"{name}_in_full", to=TensorProto.FLOAT)]
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return halved


def quantize(model: Any) -> Any:
    """Quantize weights of convolutions and products to 8 bits, with one scale each, and their inputs dynamically.

    Transposed convolutions have no quantized form and stay float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, warnings_suppressed():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(unshared(model), path, op_types_to_quantize=list(HEAVY), weight_type=QuantType.QUInt8)
        return onnx.load(path)


@contextlib.contextmanager
def warnings_suppressed() -> Iterator[None]:
    """Suppress log messages below errors, such as advice on how to write the graph."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def unshared(model: Any) -> Any:
    """Copy the graph and give every layer weights of its own, as the quantizer requires."""
    copied = copy.deepcopy(model)
    weights = {one.name: one for one in model.graph.initializer}
    used = set()
    for number, node in enumerate(copied.graph.node):
        for index, name in enumerate(node.input):
            if name in weights and name in used:
                node.input[index] = f"{name}_{number}"
                copied.graph.initializer.add().CopyFrom(weights[name])
                copied.graph.initializer[-1].name = node.input[index]
            used.add(name)
    return copied


PRECISIONS: dict[str, Callable[[Any], Any]] = {"fp16": halve, "int8": quantize}


# -- error ------------------------------------------------------------------------------------------------------------


def run(model: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run the graph; its random numbers are the same in every precision."""
    import onnx
    import onnxruntime

    seeded = copy.deepcopy(model)
    for number, node in enumerate(node for node in seeded.graph.node if node.op_type.startswith("Random")):
        node.attribute.append(onnx.helper.make_attribute("seed", float(number)))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors; it warns of optional inputs
    session = onnxruntime.InferenceSession(seeded.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {one.name for one in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in inputs})


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the norm of the difference divided by the norm of the exact value."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
