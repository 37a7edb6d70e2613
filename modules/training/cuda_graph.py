"""Work for a CUDA device, recorded once for each shape of its inputs and then replayed in one piece (a CUDA graph).

A training step of the published sizes is about ten thousand kernels of a few microseconds each: starting them one by
one keeps the program busy for longer than the device. A replay is one start. The kernels are the same, and so are
their numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from modules.console import UserError, option
from modules.memory import is_lack_of_memory

Tensors = Sequence["Tensor | None"]


class Recorder:
    """``function(tensors, *options)``, which a call on a CUDA device replays where it can.

    The first call with given options and numbers of items runs as it is, which lets libraries, compilers and optimizers
    make what they keep. Later ones record each new set of shapes once, and replay it. For that the function must do the
    same whenever shapes and options are the same, must not wait for the device, and must change what outlives it in
    place. A tensor in one place is always of one type. Draws come from the device's own generator, as that is seeded at
    the call.

    What a call returns is overwritten by the next one. A new kind of call, and a tensor longer than those that were
    recorded, drop all recordings.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, *, enabled: bool = True):
        self.function, self.device = function, device
        self.enabled = enabled and device.type == "cuda"
        self.ran: set[Hashable] = set()
        self.recordings: dict[Hashable, Recording] = {}
        self.inputs: dict[int, Tensor] = {}  # by place: the numbers of the recordings' inputs, one after the other
        if self.enabled:
            self.stream = _side_stream(device)
            self.pool = torch.cuda.graph_pool_handle()  # one for all: no two replays run at the same time

    def __call__(self, tensors: Tensors, *options: Hashable) -> Any:
        if not self.enabled:
            return self.function(tensors, *options)
        kind = options, *(None if tensor is None else len(tensor) for tensor in tensors)
        if kind not in self.ran:
            self.ran.add(kind)
            self._forget()
            return self._run(tensors, *options)
        key = options, *(None if tensor is None else tensor.shape for tensor in tensors)
        if key not in self.recordings:
            self.recordings[key] = Recording(self, self._inputs_like(tensors), options)
        return self.recordings[key].replay(tensors)

    def _run(self, tensors: Tensors, *options: Hashable) -> Any:
        """Without a recording, but on its stream: what autograd keeps with a parameter names the stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return self.function(tensors, *options)
        finally:
            current.wait_stream(self.stream)

    def _forget(self) -> None:
        """Drop all recordings: their memory is theirs alone, and what does not fit into it needs as much besides."""
        if self.recordings:
            torch.cuda.synchronize(self.device)
            self.recordings.clear()
            self.pool = torch.cuda.graph_pool_handle()
            torch.cuda.empty_cache()

    def _inputs_like(self, tensors: Tensors) -> list[Tensor | None]:
        """Tensors of these shapes for a recording to read from; all recordings have them in the same memory, which only
        grows, and then they are dropped."""
        for place, tensor in enumerate(tensors):
            if tensor is not None and (place not in self.inputs or self.inputs[place].numel() < tensor.numel()):
                self._forget()
                self.inputs[place] = tensor.new_empty(tensor.numel())
        return [
            None if tensor is None else self.inputs[place][: tensor.numel()].view(tensor.shape)
            for place, tensor in enumerate(tensors)
        ]


class Recording:
    """The function's work on ``inputs`` of one shape, as it was recorded; nothing has run yet.

    Raises an error of which ``is_lack_of_memory`` is true, or UserError when the work cannot be recorded.
    """

    def __init__(self, recorder: Recorder, inputs: Tensors, options: tuple[Hashable, ...]):
        self.inputs = inputs
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, which pin the next batch's memory, may go on meanwhile.
        recording = torch.cuda.graph(
            self.graph, pool=recorder.pool, stream=recorder.stream, capture_error_mode="thread_local"
        )
        current = torch.cuda.current_stream(recorder.device)
        try:
            with recording:
                self.outputs = recorder.function(self.inputs, *options)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # which a recording that failed leaves to others
            cause = error.__context__ or error  # what the end of a failed recording says hides why it failed
            if is_lack_of_memory(cause):
                raise cause from None
            reason = str(cause).partition("\n")[0]
            raise UserError(
                f"a step could not be recorded as a CUDA graph ({reason}); train with {option('cuda_graphs', False)}"
            ) from error

    def replay(self, tensors: Tensors) -> Any:
        for kept, given in zip(self.inputs, tensors, strict=True):
            if kept is not None:
                kept.copy_(given)
        self.graph.replay()
        return self.outputs


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for all of a device's recordings: libraries keep workspace for each stream that they have met."""
    return torch.cuda.Stream(device)
