"""Cut a synthesizer's graph before its decoder, so that songs can be decoded in blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

# The decoder's layers that read from the rest of the graph, by the names that their weights have in exported graphs.
LATENT, SPEAKER, SOURCE = "dec.conv_pre.weight", "dec.cond.weight", "dec.noise_convs.0.weight"
ROUNDING = ("Cast", "DynamicQuantizeLinear")  # operations before a layer in a smaller precision


class Split(NamedTuple):
    """A graph in two (``onnx.ModelProto``), and the names of the tensors between them."""

    head: Any
    decoder: Any
    latent: str
    speaker: str
    source: str


def split_before_decoder(model: Any) -> Split | None:
    """Cut a graph into the part before the decoder and the decoder; None if its layers have other names."""
    from onnx import TensorProto, helper
    from onnx.utils import Extractor

    names = [_input_of(model.graph, weight) for weight in (LATENT, SPEAKER, SOURCE)]
    if None in names:
        return None
    known = {value.name for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    for name in set(names) - known:
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    extractor = Extractor(model)
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    head = extractor.extract_model(inputs, names)
    head.metadata_props.extend(model.metadata_props)
    return Split(head, extractor.extract_model(names, outputs), *names)


def _input_of(graph: Any, weight: str) -> str | None:
    """Return the tensor that the convolution with this weight reads, in float32; None if there is no such layer."""
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type.startswith("Conv") and weight in node.input[1]:
            name = node.input[0]
            while (maker := makers.get(name)) and maker.op_type in ROUNDING:
                name = maker.input[0]
            return name
    return None
