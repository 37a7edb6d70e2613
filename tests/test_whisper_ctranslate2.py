"""A Whisper of CTranslate2 becomes a checkpoint with the same weights; damaged files are refused."""

from __future__ import annotations

import pytest
import torch

from modules.console import UserError
from modules.weights.ctranslate2_file import read_ctranslate2
from tests.bounded import bounded
from tests.checkpoint_files import whisper_checkpoint
from tests.ctranslate2_files import whisper_tensors, write_ctranslate2
from vencoder.whisper import Whisper
from vencoder.whisper_ctranslate2 import convert_whisper


@pytest.fixture
def checkpoint():
    return whisper_checkpoint(5, width=128, layers=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_converted_checkpoint_has_the_weights_of_the_original(tmp_path, checkpoint, dtype):
    model = write_ctranslate2(tmp_path / "model.bin", whisper_tensors(checkpoint, dtype))
    convert_whisper(model, tmp_path / "base.pt")
    found = torch.load(tmp_path / "base.pt", weights_only=True)
    wanted = {name: one for name, one in checkpoint["model_state_dict"].items() if name.startswith("encoder.")}
    assert found["dims"] == checkpoint["dims"]
    assert set(found["model_state_dict"]) == set(wanted)
    for name, tensor in found["model_state_dict"].items():
        assert torch.equal(tensor, wanted[name].to(dtype)), name
    assert Whisper("whisper-ppg", 128, None, tmp_path / "base.pt")(torch.zeros(16000)).shape == (1, 128, 50)


def test_a_truncated_file_is_refused_and_nothing_is_written(tmp_path, checkpoint):
    model = write_ctranslate2(tmp_path / "model.bin", whisper_tensors(checkpoint))
    content = model.read_bytes()
    for tenth in range(10):
        model.write_bytes(content[: len(content) * tenth // 10])
        with pytest.raises(UserError, match="model.bin is no CTranslate2 model, or is damaged"):
            convert_whisper(model, tmp_path / "base.pt")
        assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_models_that_are_no_usable_whisper_are_named(tmp_path, checkpoint):
    tensors = whisper_tensors(checkpoint)
    scale = {"encoder/layer_0/ffn/linear_0/weight_scale": torch.ones(1)}
    missing = {name: one for name, one in tensors.items() if name != "encoder/num_heads"}
    other = {**tensors, "encoder/conv3/weight": torch.ones(1)}
    for changes, sentence in (
        ({"kind": "TransformerSpec"}, "is no Whisper of CTranslate2: it is a TransformerSpec"),
        ({"version": 99}, "version 99 of the format is unknown"),
        ({"tensors": tensors | scale}, "quantised to 8 bits"),
        ({"tensors": missing}, "lacks tensors of a Whisper .*num_heads"),
        ({"tensors": other}, "does not have: encoder/conv3/weight"),
    ):
        model = write_ctranslate2(tmp_path / "model.bin", **{"tensors": tensors} | changes)
        with pytest.raises(UserError, match=sentence):
            convert_whisper(model, tmp_path / "base.pt")


def test_sizes_that_are_not_those_of_the_values_take_no_memory(tmp_path):
    model = write_ctranslate2(tmp_path / "model.bin", {"a": torch.zeros(4)})
    content = bytearray(model.read_bytes())
    at = content.index(b"a\0") + 2
    for place, values in ((at + 1, b"\xff\xff\xff\x7f"), (at + 6, b"\xff\xff\xff\xff"), (at, b"\xff")):
        damaged = bytes(content[:place]) + values + bytes(content[place + len(values) :])
        model.write_bytes(damaged)
        assert "model.bin" in bounded(lambda: read_ctranslate2(model), mib=50)
