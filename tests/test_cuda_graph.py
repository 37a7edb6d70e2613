"""modules/cuda_graph.py: which calls run eagerly, are captured or are replayed.

The graphs are fakes, for machines without a CUDA device; tests/test_cuda.py uses real ones.
"""

import contextlib

import pytest
import torch

from modules import cuda_graph
from modules.console import UserError
from modules.cuda_graph import GraphedFunction


class Graph:
    """A fake CUDA graph that counts its replays."""

    replays = 0

    def replay(self):
        self.replays += 1


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def graphed(monkeypatch):
    """A GraphedFunction of a function that sums its tensors and records its calls."""
    monkeypatch.setattr(cuda_graph, "_capture_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: contextlib.nullcontext())
    calls = []

    def function(tensors, *options):
        calls.append((tuple(None if tensor is None else tuple(tensor.shape) for tensor in tensors), *options))
        return sum(tensor.sum() for tensor in tensors if tensor is not None)

    made = GraphedFunction(function, torch.device("cuda"))
    made.calls = calls
    return made


def test_a_first_call_runs_eagerly_and_later_ones_are_captured_once_for_each_shape(graphed):
    short, long, one = torch.ones(2, 3), torch.ones(2, 5), torch.ones(1, 9)
    for tensor in (long, long, short, long, short):
        graphed([tensor, None], True)
    assert graphed.calls == [(((2, 5), None), True), (((2, 5), None), True), (((2, 3), None), True)]
    assert [own.graph.replays for own in graphed.graphs.values()] == [2, 2]
    pool = graphed.pool
    for tensor, option, graphs in ((one, True, 0), (one, True, 1), (short, True, 2), (short, False, 0)):
        graphed([tensor, None], option)
        assert len(graphed.graphs) == graphs, "a new batch size or option drops all graphs"
    assert graphed.pool is not pool


def test_graphs_share_input_memory_and_are_dropped_when_it_grows(graphed):
    for frames in (3, 5, 4, 3):
        graphed([torch.ones(2, frames), None])
    (five, nothing), (four, _), (three, _) = (own.inputs for own in graphed.graphs.values())
    assert five.data_ptr() == four.data_ptr() == three.data_ptr() and nothing is None
    assert [own.shape for own in (five, four, three)] == [(2, 5), (2, 4), (2, 3)] and three.is_contiguous()
    graphed([torch.ones(2, 6), None])
    assert [own.inputs[0].shape for own in graphed.graphs.values()] == [(2, 6)]


def test_many_short_inputs_and_few_long_ones_in_turn_are_captured_once_each(graphed):
    many, few = (torch.ones(3, 2), torch.ones(3)), (torch.ones(2, 9), torch.ones(2))
    for tensors in (many, few) * 4:
        graphed(tensors)
    assert len(graphed.graphs) == 2 and len(graphed.calls) == 5, "growing memory captures one anew"


def test_a_replay_reads_the_tensors_of_its_call(graphed):
    for value in (1, 2, 3):
        graphed([torch.full((2, 3), value), None])
    (own,) = graphed.graphs.values()
    assert own.inputs[0].tolist() == [[3] * 3] * 2 and own.inputs[1] is None


def test_without_a_cuda_device_or_when_disabled_the_function_runs_eagerly(graphed):
    function = graphed.function
    disabled = GraphedFunction(function, graphed.device, enabled=False)
    for other in (GraphedFunction(function, torch.device("cpu")), disabled):
        for value in (1.0, 2.0):
            assert other([torch.full((2,), value)]) == 2 * value
        assert not other.graphs


def test_a_failed_capture_names_the_flag_that_disables_it_and_a_lack_of_memory_stays_one(graphed, monkeypatch):
    @contextlib.contextmanager
    def broken_graph(graph, **options):
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    graphed([torch.ones(2)])
    current, streams = Stream(), []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(torch.cuda, "graph", broken_graph)
    for fault, seen, words in (
        (RuntimeError("not permitted\nwhen capturing"), UserError, r"\(not permitted\); .* cuda_graphs=False"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError, "out of memory"),
    ):
        graphed.function = lambda tensors, fault=fault: (_ for _ in ()).throw(fault)
        with pytest.raises(seen, match=words):
            graphed([torch.ones(2)])
    assert streams == [current, current], "the current stream is restored"


def test_an_optional_graph_that_cannot_be_captured_runs_eagerly_from_then_on(graphed, monkeypatch):
    @contextlib.contextmanager
    def broken_graph(graph, **options):
        yield
        raise RuntimeError("not permitted when capturing")

    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "graph", broken_graph)
    graphed.optional = True
    assert [graphed([torch.full((2,), value)]).item() for value in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert not graphed.enabled and not graphed.graphs
    assert len(graphed.calls) == 4, "one of them is the capture that failed"
