"""Capture a function's work on a CUDA device as CUDA graphs, one for each set of input shapes, and replay them.

A training step of the published sizes is about ten thousand kernels of a few microseconds each, and launching them one
by one takes the program longer than the device needs to run them. A replay is a single launch of the same kernels, so
its results are the same. An evaluation of the diffusion's denoiser has some two hundred.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.console import UserError, get_logger, option
from modules.memory import is_lack_of_memory

log = get_logger("cuda")

Tensors = Sequence["Tensor | None"]


class GraphedFunction:
    """``function(tensors, *options)``, replayed from CUDA graphs on a CUDA device.

    The first call with given options and batch sizes runs eagerly, as a warm-up in which libraries, compilers and
    optimizers allocate what they keep. Later calls capture each new set of shapes once, and replay it. So the function
    must depend on shapes and options only, must not wait for the device, and must change persistent tensors in place.
    The dtype of each input must not change. Random numbers come from the device's generator, as seeded at the call.

    The next call overwrites what a call returned. A call with new options or batch sizes, and a tensor larger than all
    captured ones, drop all graphs.

    If a capture fails, the call raises UserError, or with ``optional`` this call and all later ones run eagerly.
    """

    def __init__(
        self, function: Callable[..., Any], device: torch.device, *, enabled: bool = True, optional: bool = False
    ):
        self.function, self.device, self.optional = function, device, optional
        self.enabled = enabled and device.type == "cuda"
        self.warmed_up: set[Hashable] = set()
        self.graphs: dict[Hashable, CapturedGraph] = {}
        self.buffers: dict[int, Tensor] = {}  # by index of the input: flat memory that all graphs read from
        if self.enabled:
            self.stream = _capture_stream(device)
            self.pool = torch.cuda.graph_pool_handle()  # shared, as no two replays run at the same time

    def __call__(self, tensors: Tensors, *options: Hashable) -> Any:
        if not self.enabled:
            return self.function(tensors, *options)
        kind = options, *(None if tensor is None else len(tensor) for tensor in tensors)
        if kind not in self.warmed_up:
            self.warmed_up.add(kind)
            self._drop_graphs()
            return self._run_eagerly(tensors, *options)
        key = options, *(None if tensor is None else tensor.shape for tensor in tensors)
        if key not in self.graphs:
            try:
                self.graphs[key] = CapturedGraph(self, self._inputs_like(tensors), options)
            except (UserError, RuntimeError) as error:
                if not self.optional:
                    raise
                log.info("no CUDA graph is used: %s", error)
                self.enabled = False
                self._drop_graphs()
                return self.function(tensors, *options)
        return self.graphs[key].replay(tensors)

    def _run_eagerly(self, tensors: Tensors, *options: Hashable) -> Any:
        """Run without a graph, but on the capture stream: autograd remembers the stream of each parameter."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return self.function(tensors, *options)
        finally:
            current.wait_stream(self.stream)

    def _drop_graphs(self) -> None:
        """Free the graphs' memory pool, which nothing else can use; growing beyond it would need as much again."""
        if self.graphs:
            torch.cuda.synchronize(self.device)
            self.graphs.clear()
            self.pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def _inputs_like(self, tensors: Tensors) -> list[Tensor | None]:
        """Return views of the shared buffers with the shapes of ``tensors``. Growing a buffer drops all graphs."""
        for index, tensor in enumerate(tensors):
            if tensor is not None and (index not in self.buffers or self.buffers[index].numel() < tensor.numel()):
                self._drop_graphs()
                self.buffers[index] = tensor.new_empty(tensor.numel())
        return [
            None if tensor is None else self.buffers[index][: tensor.numel()].view(tensor.shape)
            for index, tensor in enumerate(tensors)
        ]


class CapturedGraph:
    """The CUDA graph of the function's work on ``inputs`` of one set of shapes. Capturing runs nothing.

    Raises an error for which ``is_lack_of_memory`` is true, or UserError when the work cannot be captured.
    """

    def __init__(self, owner: GraphedFunction, inputs: Tensors, options: tuple[Hashable, ...]):
        self.inputs = inputs
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may use the device meanwhile, to pin the memory of the next batch.
        capture = torch.cuda.graph(
            self.graph, pool=owner.pool, stream=owner.stream, capture_error_mode="thread_local"
        )
        current = torch.cuda.current_stream(owner.device)
        try:
            with capture:
                self.outputs = owner.function(self.inputs, *options)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a failed capture does not restore it
            cause = error.__context__ or error  # the error at the end of a failed capture hides the first one
            if is_lack_of_memory(cause):
                raise cause from None
            reason = str(cause).partition("\n")[0]
            raise UserError(
                f"a step could not be captured as a CUDA graph ({reason}); train with {option('cuda_graphs', False)}"
            ) from error

    def replay(self, tensors: Tensors) -> Any:
        """Copy ``tensors`` into the inputs, launch the graph and return the outputs."""
        for own, given in zip(self.inputs, tensors, strict=True):
            if own is not None:
                own.copy_(given)
        self.graph.replay()
        return self.outputs


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for all captures on a device: a single one, since libraries keep a workspace per stream."""
    return torch.cuda.Stream(device)
