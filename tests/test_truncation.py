"""modules/untrusted/truncation.py: a file that was cut anywhere is truncated, and no whole file is."""

import argparse
import pickle

import pytest
import torch

from modules.untrusted.truncation import is_truncated

CONTENT = {"model": {"w": torch.arange(40.0), "b": torch.zeros(3)}, "iteration": 1}


def error_of(path):
    try:
        torch.load(path, weights_only=True)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("layout", ["zip", "stream"])
def test_a_checkpoint_cut_at_any_byte_is_truncated(tmp_path, layout):
    path = tmp_path / "G_1.pth"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=layout == "zip")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7 if layout == "zip" else 1):
        path.write_bytes(whole[:length])
        if error := error_of(path):
            assert is_truncated(path, error), length
    path.write_bytes(bytes(len(whole)))
    assert is_truncated(path, error_of(path)), "room that was never filled"


@pytest.mark.parametrize("layout", ["zip", "stream"])
def test_a_whole_file_that_is_refused_is_not_truncated(tmp_path, layout):
    path = tmp_path / "G_1.pth"
    torch.save({**CONTENT, "args": argparse.Namespace(lr=1)}, path, _use_new_zipfile_serialization=layout == "zip")
    assert not is_truncated(path, error_of(path))


def test_a_file_of_another_kind_is_not_truncated(tmp_path):
    for content in (b"\x89PNG and so on", b"<html>404", pickle.dumps({"a": 1}), b"version https://git-lfs"):
        (tmp_path / "G_1.pth").write_bytes(content)
        assert not is_truncated(tmp_path / "G_1.pth", error_of(tmp_path / "G_1.pth"))
