"""Readers of untrusted pickles return the numbers and run no code."""

from __future__ import annotations

import collections
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from modules.console import UserError
from modules.untrusted.safe_pickle import Inert, load_object_array, load_pickle, load_torch_arrays, load_torch_inert
from tests.checkpoint_files import LAYOUTS, contentvec_weights, write_contentvec_checkpoint

SMALL = {"layers": 1, "width": 64, "convolutions": 8, "final": 16}


class Calls:
    """Pickles as a call of ``function``, which an ordinary unpickler would make."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_fairseq_checkpoint_gives_its_tensors(tmp_path, layout):
    path = write_contentvec_checkpoint(tmp_path / "a.pt", seed=3, layout=layout, **SMALL)
    checkpoint = load_torch_inert(path)
    wanted = contentvec_weights(3, **SMALL)
    assert list(checkpoint["model"]) == list(wanted)
    assert all(torch.equal(checkpoint["model"][name], wanted[name]) for name in wanted)
    assert isinstance(checkpoint["task_state"]["dictionaries"][0], Inert)
    assert "fairseq" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_dtypes_views_and_parameters_come_back_as_saved(tmp_path, zipped):
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "transposed": base.T,
        "row": base[1],
        "half": base.half(),
        "bf16": base.bfloat16(),
        "whole": torch.tensor([1, 2]),
        "parameter": torch.nn.Parameter(base),
    }
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    for name, tensor in load_torch_inert(tmp_path / "a.pt").items():
        assert tensor.dtype == saved[name].dtype and torch.equal(tensor, saved[name]), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "function", [os.system, subprocess.check_call, eval, exec, getattr, torch.load, pickle.loads, __import__]
)
def test_a_hostile_checkpoint_is_refused_by_the_name_it_asks_for(tmp_path, zipped, function):
    marker = tmp_path / "ran"
    torch.save({"x": Calls(function, f"touch {marker}")}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"refused: its pickle uses \w[\w.]*\.{function.__name__}"):
        load_torch_inert(tmp_path / "a.pt")
    assert not marker.exists()


def test_the_hostile_payload_of_these_tests_would_run_in_an_ordinary_reader(tmp_path):
    torch.save({"x": Calls(os.system, f"touch {tmp_path / 'ran'}")}, tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_checkpoint_inside_a_checkpoint_is_not_opened(tmp_path):
    inner = pickle.dumps(Calls(os.system, "true"))
    torch.save({"x": Calls(torch.storage._load_from_bytes, inner)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="torch.storage._load_from_bytes"):
        load_torch_inert(tmp_path / "a.pt")


def test_functions_that_a_pickle_may_call_cannot_be_changed_by_it(tmp_path):
    payload = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00__a__K\x01sb."
    with pytest.raises(UserError, match="a change of a function"):
        load_torch_inert(_with_pickle(tmp_path / "a.pt", payload))
    assert not hasattr(torch._utils._rebuild_tensor_v2, "__a__")


def test_stand_ins_keep_nothing_and_import_nothing(tmp_path):
    payload = b"\x80\x02cfairseq.tasks\nTask\nX\x01\x00\x00\x00x\x85R}X\x01\x00\x00\x00aK\x01sb."
    stand_in = load_torch_inert(_with_pickle(tmp_path / "a.pt", payload))
    assert isinstance(stand_in, Inert) and vars(stand_in) == {}
    assert "fairseq" not in sys.modules


@pytest.mark.parametrize("layout", ["cfg_dict", "legacy"])
def test_a_truncated_file_is_called_so_with_its_size(tmp_path, layout):
    path = write_contentvec_checkpoint(tmp_path / "a.pt", layout=layout, **SMALL)
    data = path.read_bytes()
    for length in (0, 20, len(data) // 3, len(data) - 5):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=f"truncated, its size is {length:,} bytes"):
            load_torch_inert(path)


def test_a_torchscript_program_is_refused(tmp_path):
    torch.save({}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(UserError, match="TorchScript program"):
        load_torch_inert(tmp_path / "a.pt")


def test_a_tar_archive_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("\udc80storages"))
    with pytest.raises(UserError, match="not a PyTorch checkpoint"):
        load_torch_inert(tmp_path / "a.pt")


def test_a_web_page_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "a.pt").write_text("<!DOCTYPE html>", encoding="utf-8")
    with pytest.raises(UserError, match="not a PyTorch checkpoint: it starts with b'<!DO'"):
        load_torch_inert(tmp_path / "a.pt")
    with pytest.raises(UserError, match="b.pt cannot be read: No such file"):
        load_torch_inert(tmp_path / "b.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_that_torch_saved_come_back_as_they_were(tmp_path, zipped, protocol):
    array = np.random.default_rng(0).standard_normal((3, 4))
    saved = {
        "名": {"rows": array, "columns": np.asfortranarray(array.astype(np.float32)), "whole": array.astype(np.int64)},
        2: [1, 2.5, "text", None, True, np.float32(0.5), (array[0], "x")],
    }
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = load_torch_arrays(tmp_path / "a.pt")
    assert found[2][:6] == saved[2][:6] and isinstance(found[2][6], tuple) and list(found) == ["名", 2]
    np.testing.assert_array_equal(found[2][6][0], array[0])
    for name, wanted in saved["名"].items():
        assert found["名"][name].dtype == wanted.dtype and found["名"][name].flags.writeable
        np.testing.assert_array_equal(found["名"][name], wanted)


@pytest.mark.parametrize(
    "item", [Calls(os.system, "touch ran"), torch.zeros(2), {1, 2}, collections.OrderedDict(a=1), np.array("text", "O")]
)
def test_what_is_neither_array_nor_number_is_refused_among_arrays(tmp_path, monkeypatch, item):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": [np.zeros(3), item]}, "a.pt")
    with pytest.raises(UserError, match="a.pt is refused"):
        load_torch_arrays("a.pt")
    assert not os.path.exists("ran")


def test_a_container_that_holds_itself_is_called_damaged(tmp_path):
    endless = {}
    endless["a"] = endless
    torch.save(endless, tmp_path / "a.pt")
    with pytest.raises(UserError, match="a.pt is damaged"):
        load_torch_arrays(tmp_path / "a.pt")


class Point:
    """Stand-in for a class of another program."""

    def __setstate__(self, state):
        self.state = dict(state)


def test_objects_become_those_of_the_class_that_the_caller_chose(tmp_path):
    stated = b"\x80\x02ca.b\nPoint\n)\x81}X\x01\x00\x00\x00xK\x05sb."
    (tmp_path / "a.pkl").write_bytes(stated)
    point = load_pickle(tmp_path / "a.pkl", lambda module, name: Point if (module, name) == ("a.b", "Point") else None)
    assert type(point) is Point and point.state == {"x": 5}
    with pytest.raises(UserError, match="a.pkl is refused: its pickle uses a.b.Point"):
        load_pickle(tmp_path / "a.pkl", lambda module, name: None)
    with pytest.raises(UserError, match="b.pkl cannot be read: No such file"):
        load_pickle(tmp_path / "b.pkl", lambda module, name: None)


def test_the_original_f0_files_are_read_in_each_of_their_forms(tmp_path):
    f0, uv = [100.5, 0.0, 220.25], [1.0, 0.0, 1.0]
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.array(f0, np.float32), np.array(uv)[:2]]
    forms = {
        "python floats": np.array([f0, uv], dtype=object),
        "numpy floats": np.array([list(np.float32(f0)), list(np.float64(uv))], dtype=object),
        "by columns": np.asfortranarray(np.array([f0, uv], dtype=object)),
        "plain": np.array([f0, uv], np.float32),
        "arrays of two lengths": ragged,
    }
    for name, array in forms.items():
        np.save(tmp_path / "f0.npy", array, allow_pickle=True)
        found = load_object_array(tmp_path / "f0.npy")
        assert found.shape == array.shape, name
        for row, wanted in zip(found, array, strict=True):
            np.testing.assert_array_equal(np.asarray(row, np.float64), np.asarray(wanted, np.float64), err_msg=name)


def test_the_original_augmented_mel_is_read(tmp_path):
    pair = np.empty(2, dtype=object)
    pair[:] = [np.asfortranarray(np.random.default_rng(0).random((5, 128), np.float32)), -3.5]
    np.save(tmp_path / "aug.npy", pair, allow_pickle=True)
    mel, shift = load_object_array(tmp_path / "aug.npy")
    np.testing.assert_array_equal(mel, pair[0])
    assert mel.dtype == np.float32 and shift == -3.5


@pytest.mark.parametrize("item", [Calls(os.system, "touch ran"), collections.OrderedDict(), "text", Calls(eval, "1")])
def test_a_hostile_or_odd_array_file_is_refused(tmp_path, monkeypatch, item):
    monkeypatch.chdir(tmp_path)
    array = np.empty(2, dtype=object)
    array[:] = [1.0, item]
    np.save("f0.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match="f0.npy is refused: its pickle uses"):
        load_object_array("f0.npy")
    assert not os.path.exists("ran")


def test_a_damaged_array_file_is_named(tmp_path):
    np.save(tmp_path / "f0.npy", np.array([[1.0], [0.0]], dtype=object), allow_pickle=True)
    data = (tmp_path / "f0.npy").read_bytes()
    for length in (0, 5, 40, len(data) - 4):
        (tmp_path / "f0.npy").write_bytes(data[:length])
        with pytest.raises(UserError, match="f0.npy is damaged"):
            load_object_array(tmp_path / "f0.npy")


def object_array_file(path, payload: bytes):
    """An ``.npy`` file of two objects whose pickle is ``payload``."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (2,)})
        file.write(payload)
    return path


ARRAY = b"\x80\x04cnumpy\nndarray\n\x94"
MANY_ARRAYS_OF_THE_SAME_BYTES = (
    ARRAY + b"cnumpy\ndtype\n\x8c\x02u1\x85R\x94B\x00\x00\x10\x00" + bytes(1 << 20) + b"\x94"
    + 1000 * b"h\x00)R(K\x01J\x00\x00\x10\x00\x85h\x01\x89h\x02tb0" + b"."
)  # fmt: skip
THE_SAME_TEXT_ENCODED_AGAIN_AND_AGAIN = (
    b"\x80\x02c_codecs\nencode\nq\x00X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x01X\x06\x00\x00\x00latin1q\x02"
    + 1000 * b"h\x00h\x01h\x02\x86R" + b"."
)  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (MANY_ARRAYS_OF_THE_SAME_BYTES, "expands to more data"),
        (THE_SAME_TEXT_ENCODED_AGAIN_AND_AGAIN, "expands to more data"),
        (b"\x80\x02K\x00r\xff\xff\xff\x07.", "the object number 134217727"),
        (b"\x80\x02K\x00p134217727\n.", "the object number 134217727"),
        (b"\x80\x04\x8e\x00\x00\x00\x40\x00\x00\x00\x00x.", "expected 1073741824 bytes"),
    ],
)
def test_a_small_file_takes_little_memory_whatever_its_pickle_does(tmp_path, payload, words):
    object_array_file(tmp_path / "a.npy", payload)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"a.npy is damaged.*{words}"):
            load_object_array(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def _with_pickle(path, payload: bytes):
    """A zip checkpoint whose pickle is ``payload``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", payload)
        archive.writestr(f"{path.stem}/version", "3\n")
    return path
