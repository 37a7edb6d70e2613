"""Writes a network as an ONNX file: traces, checks and names it, and writes it whole or not at all.

The exporter is PyTorch's TorchScript-based one (``dynamo=False``) at opset 16, as in the published program, whose hosts
read such graphs. It needs no further package, and it suits these networks: convolutions and products without control
flow that depends on data.

The exporter folds constants; no other tool simplifies the graphs. onnxslim 0.1.98 reduces the default synthesizer from
2,363 nodes to 1,223 (714 of the removed ones are constants), but the file stays as large, ONNX Runtime as slow (2.36 s
for 2.5 s of sound on one core), and the source's first phases become constants.
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
MAX_BYTES = 2 * 10**9  # of weights; one ONNX file holds at most 2 GiB

log = get_logger("onnx")


@dataclass(frozen=True)
class Graph:
    """A network and the signature of its graph.

    Attributes:
        network: its ``forward`` takes the inputs in this order.
        inputs: an example of each by name; the graph does not depend on the examples' lengths.
        outputs: their names.
        axes: for each input or output, the names of its axes of variable length.
        facts: metadata stored in the file.
        optional: inputs whose example is the value if the host passes none.
        reducible: whether a smaller precision applies to it.
    """

    network: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    facts: Mapping[str, int] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    reducible: bool = True


def refuse_target(path: str | Path, *sources: str | Path) -> None:
    """Raise UserError if ``path`` is one of the ``sources`` or does not end in .onnx."""
    refuse_to_overwrite(path, *sources)
    if Path(path).suffix != SUFFIX:
        raise UserError(
            f"{path} does not end in {SUFFIX}, as the name of a graph has to; choose another name with "
            f"{option('output')}"
        )


def write_graph(graph: Graph, path: str | Path, precision: str = "fp32") -> None:
    """Write the graph to ``path``, whole or not at all; the same weights give the same bytes.

    ``precision`` is ``fp32`` or a key of PRECISIONS; the error of a smaller one on the examples is logged. Raises
    UserError if onnx is not installed, the graph is too large for one file, or ``path`` cannot be written.
    """
    write_graphs({path: graph}, precision)


def write_graphs(
    graphs: Mapping[str | Path, Graph], precision: str = "fp32", texts: Mapping[str | Path, str] | None = None
) -> None:
    """Write several graphs, and ``texts``, as ``write_graph`` does: either all files are written or none."""
    contents = {}
    for path, graph in graphs.items():
        model = trace(graph)
        if precision != "fp32" and graph.reducible:
            model = reduce_precision(model, precision, graph.inputs, Path(path).name)
        contents[path] = model.SerializeToString(deterministic=True)
    contents |= {path: text.encode() for path, text in (texts or {}).items()}
    with output_paths(*contents) as temporaries:
        for temporary, content in zip(temporaries, contents.values(), strict=True):
            temporary.write_bytes(content)
    for path in graphs:
        log.info("%s: %.1f MB", path, len(contents[path]) / 1e6)


def trace(graph: Graph) -> Any:
    """Export the graph to an ``onnx.ModelProto`` and check it. Raises UserError as ``write_graph``."""
    onnx = import_package("onnx", "an export")
    network = graph.network.eval().requires_grad_(False)
    refuse_large(network)
    buffer = io.BytesIO()
    # With gradients on, the networks compute a song at once. Without, they cut it into blocks, and the graph would
    # store the example's length. The state of the random generator is restored after tracing.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its deprecation and of constants in the trace
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
    resolve_weight_aliases(model.graph)
    for name in graph.optional:
        model.graph.initializer.append(onnx.numpy_helper.from_array(graph.inputs[name].numpy(), name))
    for output in model.graph.output:
        if 0 not in graph.axes.get(output.name, {}):  # the exporter does not always infer the batch size of 1
            output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.checker.check_model(model, full_check=True)
    return model


def keep_unused_inputs(traced: Any, graph: Graph) -> None:
    """Restore unused inputs, which the exporter drops: hosts pass every input of the signature."""
    from onnx import helper

    inputs = {one.name: one for one in traced.input}
    for name, example in graph.inputs.items():
        if name not in inputs:
            kind = helper.np_dtype_to_tensor_dtype(example.numpy().dtype)
            shape = [graph.axes.get(name, {}).get(axis, length) for axis, length in enumerate(example.shape)]
            inputs[name] = helper.make_tensor_value_info(name, kind, shape)
    del traced.input[:]
    traced.input.extend(inputs[name] for name in graph.inputs)


def resolve_weight_aliases(traced: Any) -> None:
    """Replace aliases of weights by the weights.

    The exporter stores equal weights once and adds Identity nodes for their other names, where ``reduce_precision``
    would not find them.
    """
    weights = {one.name for one in traced.initializer}
    aliases = {
        node.output[0]: node.input[0] for node in traced.node if node.op_type == "Identity" and node.input[0] in weights
    }
    kept = [node for node in traced.node if node.output[0] not in aliases]
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
    del traced.node[:]
    traced.node.extend(kept)


def refuse_large(network: nn.Module) -> None:
    """Raise UserError if the weights do not fit into one file."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_BYTES:
        raise UserError(f"the network takes {size / 1e9:.1f} GB, and one ONNX file holds 2 GB; export a smaller one")
