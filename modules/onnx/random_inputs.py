"""Replace the random operations of a graph by inputs, so that the caller supplies the random numbers."""

from __future__ import annotations

from typing import Any

RANDOM_OPS = ("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike")


def random_ops_as_inputs(model: Any) -> Any:
    """Return a copy of an ``onnx.ModelProto`` with its random operations as inputs ``random_0``, ``random_1``, ...

    The inputs are in the order of the operations in the graph and have their output shapes.
    """
    from onnx import ModelProto, TensorProto, helper

    changed = ModelProto()
    changed.CopyFrom(model)
    nodes = [node for node in changed.graph.node if node.op_type in RANDOM_OPS]
    for number, node in enumerate(nodes):
        name = f"random_{number}"
        changed.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        node.CopyFrom(helper.make_node("Identity", [name], list(node.output), node.name))
    return changed
