"""A network as an ONNX file: traced, checked, named, and written in one piece.

The exporter is PyTorch's TorchScript-based one (``dynamo=False``) at opset 16, what the published program uses and the
hosts of its models read. It needs no further package, and these networks are what it is good at: straight lines of
convolutions and products, in which no number decides what is computed next.

It folds constants itself, and nothing simplifies the graphs afterwards. onnxslim 0.1.98 brings the default synthesizer
from 2,363 nodes to 1,223, 714 of those gone being constants. The file is no smaller, ONNX Runtime takes as long for
either (2.36 s for 2.5 s of sound on one core), and the source's first phases are drawn no more but the same for ever.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules.atomic_file import output_paths
from modules.console import UserError, get_logger, option
from modules.onnx.session import import_package
from onnxexport.precision import reduce_precision
from vits.generator_file import refuse_to_overwrite

OPSET = 16
SUFFIX = ".onnx"
LARGEST = 2 * 10**9  # bytes: one file of the format holds 2 GiB, weights and all

log = get_logger("onnx")


@dataclass(frozen=True)
class Graph:
    """A network and how its graph is addressed.

    Attributes:
        network: its ``forward`` takes the inputs in their order.
        inputs: an example of each by name; no example's length is special to the graph.
        outputs: their names.
        axes: of an input or output, the names of the axes whose length is not fixed.
        facts: what the file says of itself besides, for those who look there.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    facts: Mapping[str, int] = field(default_factory=dict)


def refuse_target(path: str | Path, *sources: str | Path) -> None:
    """UserError when a graph made of ``sources`` cannot be called ``path``: it is one of them, or ends otherwise."""
    refuse_to_overwrite(path, *sources)
    if Path(path).suffix != SUFFIX:
        raise UserError(
            f"{path} does not end in {SUFFIX}, as the name of a graph has to; choose another name with "
            f"{option('output')}"
        )


def write_graph(graph: Graph, path: str | Path, precision: str = "fp32") -> None:
    """Write the graph to ``path``: the same bytes for the same weights, whole or not at all, without other files.

    ``precision`` is ``fp32`` or a key of PRECISIONS; what a smaller one costs is measured on the examples and said.
    Raises UserError when onnx is not installed, the graph is too large for one file, or ``path`` cannot be written.
    """
    write_graphs({path: graph}, precision)


def write_graphs(
    graphs: Mapping[str | Path, Graph], precision: str = "fp32", texts: Mapping[str | Path, str] | None = None
) -> None:
    """As ``write_graph`` for graphs, and ``texts``, that belong together: either all are written or none."""
    contents = {}
    for path, graph in graphs.items():
        model = trace(graph)
        if precision != "fp32":
            model = reduce_precision(model, precision, graph.inputs, Path(path).name)
        contents[path] = model.SerializeToString(deterministic=True)
    contents |= {path: text.encode() for path, text in (texts or {}).items()}
    with output_paths(*contents) as temporaries:
        for temporary, content in zip(temporaries, contents.values(), strict=True):
            temporary.write_bytes(content)
    for path in graphs:
        log.info("%s: %.1f MB", path, len(contents[path]) / 1e6)


def trace(graph: Graph) -> Any:
    """The graph as an ``onnx.ModelProto``, checked. Raises UserError as ``write_graph`` does."""
    onnx = import_package("onnx", "an export")
    network = graph.network.eval().requires_grad_(False)
    refuse_large(network)
    buffer = io.BytesIO()
    # With gradients on, the networks compute in one piece; without, they cut long songs by the length they are given,
    # and the graph would hold that of the example. What is drawn while tracing comes from a generator that is put back.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        warnings.simplefilter("ignore")  # the exporter's, of its age and of constants in the tracing
        torch.onnx.export(
            network,
            tuple(graph.inputs.values()),
            buffer,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: dict(axes) for name, axes in graph.axes.items()},
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.helper.set_model_props(model, {name: str(value) for name, value in graph.facts.items()})
    keep_unused_inputs(model.graph, graph)
    name_weights_once(model.graph)
    for output in model.graph.output:
        if 0 not in graph.axes.get(output.name, {}):  # nor does the exporter always see that there is one song
            output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.checker.check_model(model, full_check=True)
    return model


def keep_unused_inputs(traced: Any, graph: Graph) -> None:
    """Put back the inputs that the exporter drops because nothing comes of them: hosts give what the signature says."""
    from onnx import helper

    there = {one.name: one for one in traced.input}
    for name, example in graph.inputs.items():
        if name not in there:
            kind = helper.np_dtype_to_tensor_dtype(example.numpy().dtype)
            shape = [graph.axes.get(name, {}).get(axis, length) for axis, length in enumerate(example.shape)]
            there[name] = helper.make_tensor_value_info(name, kind, shape)
    del traced.input[:]
    traced.input.extend(there[name] for name in graph.inputs)


def name_weights_once(traced: Any) -> None:
    """Give equal weights one name. The exporter keeps them once, and makes nodes that pass them on under the others,
    where ``reduce_precision`` would not find them."""
    weights = {one.name for one in traced.initializer}
    aliases = {
        node.output[0]: node.input[0] for node in traced.node if node.op_type == "Identity" and node.input[0] in weights
    }
    kept = [node for node in traced.node if node.output[0] not in aliases]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = aliases.get(name, name)
    del traced.node[:]
    traced.node.extend(kept)


def refuse_large(network: nn.Module) -> None:
    """UserError when the weights do not fit into one file."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > LARGEST:
        raise UserError(f"the network takes {size / 1e9:.1f} GB, and one ONNX file holds 2 GB; export a smaller one")
