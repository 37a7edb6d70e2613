from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file, save_model

from modules.console import UserError
from modules.training.checkpoint import load_checkpoint, save_checkpoint
from modules.weights.safetensors_file import read_safetensors
from tests.tiny import tiny_config
from vits.synthesizer import Synthesizer


def test_tensors_come_back_with_names_values_and_types(tmp_path):
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.arange(5), "c": torch.randn(2).half()}
    save_file(tensors, tmp_path / "x.safetensors")
    got = load_checkpoint(tmp_path / "x.safetensors")
    assert set(got) == {"model"} and set(got["model"]) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(got["model"][name], tensor) and got["model"][name].dtype == tensor.dtype


def test_names_of_a_shared_tensor_are_all_there_again(tmp_path):
    config = tiny_config()
    config.model.flow_share_parameter = True
    network = Synthesizer(config.model)
    save_model(network, tmp_path / "x.safetensors")
    got, wanted = read_safetensors(tmp_path / "x.safetensors"), network.state_dict()
    assert set(got) == set(wanted)
    assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("damage", ["truncated", "empty", "another format"])
def test_a_damaged_file_is_named_in_a_sentence(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    content = {"truncated": path.read_bytes()[:2000], "empty": b"", "another format": b"\x80\x02" * 500}[damage]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.safetensors \([\d,]+ bytes\) cannot be read as safetensors"):
        load_checkpoint(path)


def test_a_checkpoint_is_not_written_under_a_name_that_promises_safetensors(tmp_path):
    with pytest.raises(UserError, match=r"x\.safetensors.*\.pth"):
        save_checkpoint(tmp_path / "x.safetensors", {"model": {}})
    assert not list(tmp_path.iterdir())
