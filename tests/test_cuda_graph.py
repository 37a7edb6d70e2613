"""modules/training/cuda_graph.py: what runs, what is captured and what is replayed. The graphs are stand-ins, as
on a machine without a CUDA device; tests/test_cuda.py has real ones."""

import contextlib

import pytest
import torch

from modules.console import UserError
from modules.training import cuda_graph
from modules.training.cuda_graph import Recorder


class Graph:
    """Stands in for a CUDA graph: the replays of each are counted."""

    replays = 0

    def replay(self):
        self.replays += 1


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recorder(monkeypatch):
    """Records a function that adds up its tensors, and keeps the calls that it got."""
    monkeypatch.setattr(cuda_graph, "_side_stream", lambda device: Stream())
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

    made = Recorder(function, torch.device("cuda"))
    made.calls = calls
    return made


def test_a_kind_of_call_runs_first_then_is_recorded_once_for_each_shape(recorder):
    short, long, one = torch.ones(2, 3), torch.ones(2, 5), torch.ones(1, 9)
    for tensor in (long, long, short, long, short):
        recorder([tensor, None], True)
    assert recorder.calls == [(((2, 5), None), True), (((2, 5), None), True), (((2, 3), None), True)]
    assert [kept.graph.replays for kept in recorder.recordings.values()] == [2, 2]
    pool = recorder.pool
    for tensor, option, recordings in ((one, True, 0), (one, True, 1), (short, True, 2), (short, False, 0)):
        recorder([tensor, None], option)
        assert len(recorder.recordings) == recordings, "another number of items, or another option, needs the memory"
    assert recorder.pool is not pool


def test_recordings_read_from_the_same_memory_and_are_dropped_where_it_is_too_small(recorder):
    for frames in (3, 5, 4, 3):
        recorder([torch.ones(2, frames), None])
    (five, nothing), (four, _), (three, _) = (kept.inputs for kept in recorder.recordings.values())
    assert five.data_ptr() == four.data_ptr() == three.data_ptr() and nothing is None
    assert [kept.shape for kept in (five, four, three)] == [(2, 5), (2, 4), (2, 3)] and three.is_contiguous()
    recorder([torch.ones(2, 6), None])
    assert [kept.inputs[0].shape for kept in recorder.recordings.values()] == [(2, 6)]


def test_many_short_inputs_and_few_long_ones_in_turn_are_recorded_once_each(recorder):
    many, few = (torch.ones(3, 2), torch.ones(3)), (torch.ones(2, 9), torch.ones(2))
    for tensors in (many, few) * 4:
        recorder(tensors)
    assert len(recorder.recordings) == 2 and len(recorder.calls) == 5, "one is recorded anew, as the memory grows"


def test_a_replay_has_the_tensors_of_its_own_call(recorder):
    for value in (1, 2, 3):
        recorder([torch.full((2, 3), value), None])
    (kept,) = recorder.recordings.values()
    assert kept.inputs[0].tolist() == [[3] * 3] * 2 and kept.inputs[1] is None


def test_without_a_cuda_device_or_where_it_is_switched_off_the_function_is_called(recorder):
    function = recorder.function
    for other in (Recorder(function, torch.device("cpu")), Recorder(function, recorder.device, enabled=False)):
        for value in (1.0, 2.0):
            assert other([torch.full((2,), value)]) == 2 * value
        assert not other.recordings


def test_what_cannot_be_recorded_is_said_with_the_way_out_and_a_lack_of_memory_as_such(recorder, monkeypatch):
    @contextlib.contextmanager
    def broken_graph(graph, **options):
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    recorder([torch.ones(2)])
    current, streams = Stream(), []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    monkeypatch.setattr(torch.cuda, "graph", broken_graph)
    for fault, seen, words in (
        (RuntimeError("not permitted\nwhen capturing"), UserError, r"\(not permitted\); .* cuda_graphs=False"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError, "out of memory"),
    ):
        recorder.function = lambda tensors, fault=fault: (_ for _ in ()).throw(fault)
        with pytest.raises(seen, match=words):
            recorder([torch.ones(2)])
    assert streams == [current, current], "what comes after runs on the stream that it was on"
