"""ONNX graphs with the published signature: (1, 1, L) under any name in, (1, N, C) first out."""

from __future__ import annotations

import logging

import pytest
import torch

from modules.console import UserError
from modules.onnx.session import providers
from tests.encoder_files import ONNX_KEYS, write_graph
from vencoder import ENCODERS, build_encoder
from vencoder.onnx_encoder import OnnxEncoder


def kernel_of(path):
    import onnx
    from onnx import numpy_helper

    return torch.tensor(numpy_helper.to_array(onnx.load(path).graph.initializer[0]))


@pytest.mark.parametrize("key", ONNX_KEYS)
@pytest.mark.parametrize("names", [("source", "embed"), ("输入", "0")])
def test_every_key_returns_the_output_of_its_graph(tmp_path, key, names):
    row = ENCODERS[key]
    padding = 40 if key == "hubertsoft-onnx" else 0
    path = write_graph(tmp_path / row.weight, row.ssl_dim, padding, names)
    audio = torch.randn(7777, generator=torch.Generator().manual_seed(2))
    wanted = torch.conv1d(audio[None, None], kernel_of(path), stride=320, padding=padding)
    features = build_encoder(key, folder=tmp_path)(audio)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, wanted, rtol=1e-4, atol=1e-5)


def test_a_graph_of_another_size_is_named_before_use(tmp_path):
    write_graph(tmp_path / ENCODERS["vec256l9-onnx"].weight, 768)
    with pytest.raises(UserError, match="'vec256l9-onnx': it gives 768 features a frame, not 256"):
        build_encoder("vec256l9-onnx", folder=tmp_path)


def test_a_graph_with_one_frame_more_or_less_follows_the_rule_and_others_are_refused(tmp_path):
    audio = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    exact = OnnxEncoder("a", 8, None, write_graph(tmp_path / "exact.onnx", 8))(audio)
    more = OnnxEncoder("a", 8, None, write_graph(tmp_path / "more.onnx", 8, 160))(audio)
    assert more.shape == exact.shape == (1, 8, 24)
    slow = OnnxEncoder("a", 8, None, write_graph(tmp_path / "slow.onnx", 8, 4000))
    with pytest.raises(UserError, match=r"slow.onnx gives \(1, \d+, 8\) for 8000 samples, and should give 24 frames"):
        slow(audio)


def test_a_graph_of_one_length_is_refused_in_a_sentence_at_another(tmp_path):
    import onnx

    path = write_graph(tmp_path / "fixed.onnx", 8)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 16000
    onnx.save(model, path)
    encoder = OnnxEncoder("a", 8, None, path)
    assert encoder(torch.ones(16000)).shape == (1, 8, 49)
    with pytest.raises(UserError, match="fixed.onnx cannot process.*16000.*; onnx_export.py --encoder makes one"):
        encoder(torch.ones(8000))


def test_the_provider_follows_the_device(caplog):
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    with caplog.at_level(logging.WARNING):
        assert providers(torch.device("cpu"), both) == providers(torch.device("mps"), both) == both[1:]
        assert providers(torch.device("cuda", 1), both) == [(both[0], {"device_id": 1}), both[1]]
        assert providers(torch.device("cuda"), both)[0] == (both[0], {"device_id": 0})
        assert not caplog.messages
        assert providers(torch.device("cuda"), both[1:]) == both[1:]
        assert "onnxruntime-gpu" in caplog.text


def test_a_missing_onnxruntime_is_named_with_the_cure(tmp_path, monkeypatch):
    write_graph(tmp_path / ENCODERS["vec256l9-onnx"].weight, 256)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install -r requirements-onnx.txt"):
        build_encoder("vec256l9-onnx", folder=tmp_path)
