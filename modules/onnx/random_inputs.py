"""The random numbers that a graph draws inside, taken out of it: a graph that does the same to the same numbers."""

from __future__ import annotations

from typing import Any

RANDOM_OPS = ("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike")


def random_ops_as_inputs(model: Any) -> Any:
    """A copy of an ``onnx.ModelProto`` that takes as further inputs ``random_0``, ``random_1`` ... what it would draw.

    They come in the order of the graph and have the shapes that it would draw them in.
    """
    from onnx import ModelProto, TensorProto, helper

    given = ModelProto()
    given.CopyFrom(model)
    draws = [node for node in given.graph.node if node.op_type in RANDOM_OPS]
    for number, node in enumerate(draws):
        name = f"random_{number}"
        given.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        node.CopyFrom(helper.make_node("Identity", [name], list(node.output), node.name))
    return given
