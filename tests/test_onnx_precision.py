"""Graphs of smaller precision: their error is logged, and every model can have them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import onnx_export
from modules.config import Config, load_config
from onnxexport.graph import Graph, write_graph
from tests.generator_files import SPECTRUM, config_of, write_generator_file
from tests.onnx_files import onnx, open_model, relative_error, run
from tests.test_onnx_synthesizer import random_numbers, song
from vits.generator_file import load_generator
from vits.synthesizer import Synthesizer


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-2), ("int8", 1e-1)])
def test_the_logged_error_of_a_smaller_precision_is_true(tmp_path, caplog, precision, most):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv1d(64, 64, 5), torch.nn.ReLU(), torch.nn.Conv1d(64, 64, 5))
    graph = Graph(network, {"x": torch.randn(1, 64, 50)}, ("y",), {"x": {2: "t"}, "y": {2: "t"}})
    paths = [tmp_path / "whole.onnx", tmp_path / "small.onnx"]
    write_graph(graph, paths[0])
    with caplog.at_level("INFO"):
        write_graph(graph, paths[1], precision)
    whole, small = (run(path, graph.inputs) for path in paths)
    error = float((small - whole).norm() / whole.norm())
    logged = re.search(rf"small.onnx: in {precision}, 'y' is off by (\S+) of its size", caplog.text)
    assert 0 < error < most and float(logged[1]) == pytest.approx(error, rel=0.1)
    assert paths[1].stat().st_size < paths[0].stat().st_size * (0.55 if precision == "fp16" else 0.35)
    assert small.dtype == torch.float32


def untrained(path: Path) -> Config:
    """A generator before training: many of its weights are zeros, and so equal."""
    config = config_of()
    network = Synthesizer(config.model, SPECTRUM)
    assert not any(tensor.any() for name, tensor in network.state_dict().items() if name.endswith(".post.weight"))
    write_generator_file(path, config)
    torch.save({"model": network.state_dict()}, path)
    return config


def of_one_stack(path: Path) -> Config:
    """A generator whose couplings share their weights."""
    config = config_of(use_depthwise_conv=True, flow_share_parameter=True)
    write_generator_file(path, config)
    return config


@pytest.mark.parametrize("write", [untrained, of_one_stack])
@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-2), ("int8", 0.3)])
def test_a_whole_model_with_equal_weights_sings_in_a_smaller_precision(tmp_path, monkeypatch, write, precision, most):
    monkeypatch.chdir(tmp_path)
    config = write(Path("checkpoints/small/model.pth"))
    path = Path("checkpoints/small/small_SoVits.onnx")
    feeds, sounds = song(config, 30, 20, seed=0), []
    network = load_generator("checkpoints/small/model.pth", load_config("checkpoints/small/config.json"))
    latent, *inside = random_numbers(network, 30, seed=0)
    for flags in ([], ["--precision", precision]):
        assert onnx_export.main(["-n", "small", *flags]) == 0
        sounds.append(run(path, {**feeds, "noise": latent}, *inside))
    whole, small = sounds
    assert 0 < relative_error(small, whole) < most
    inputs = open_model(onnx.load(path)).get_inputs()
    assert [one.name for one in inputs] == ["c", "f0", "mel2ph", "uv", "noise", "sid"]
    assert {one.type for one in inputs} == {"tensor(float)", "tensor(int64)"}


def test_every_convolution_of_a_halved_model_has_its_weights_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    untrained(Path("checkpoints/small/model.pth"))
    assert onnx_export.main(["-n", "small", "--precision", "fp16"]) == 0
    graph = onnx.load("checkpoints/small/small_SoVits.onnx").graph
    kinds = {one.name: one.data_type for one in graph.initializer}
    weights = {node.input[1] for node in graph.node if node.op_type in ("Conv", "ConvTranspose")}
    assert len(weights) > 10
    assert {kinds[name] for name in weights} == {onnx.TensorProto.FLOAT16}
