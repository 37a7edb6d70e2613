"""modules/untrusted/torch_file.py: readers of PyTorch's files bound memory and time by the file's size, or refuse it.

The test files have a few hundred bytes and would take gigabytes or endless time; each reader gets 64 MiB and 30 s.
"""

from __future__ import annotations

import collections
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.centres import load_cluster_model
from modules.console import UserError
from modules.data.features import ClipFiles
from modules.training.checkpoint import load_checkpoint
from modules.untrusted.safe_pickle import load_torch_arrays, load_torch_inert
from modules.untrusted.torch_file import check_torch_file
from modules.weights.weight_file import read_weight_file
from tests.bounded import bounded
from tests.checkpoint_files import LAYOUTS, write_contentvec_checkpoint

READERS = {
    "checkpoint": load_checkpoint,
    "weights": load_torch_inert,
    "arrays": load_torch_arrays,
    "units": lambda path: ClipFiles(path.with_name("a.wav")).read_units(),
}


def whole(number: int) -> bytes:
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(count: int = 16, shape=(16,), strides=(1,), offset: int = 0, key: str = "0") -> bytes:
    """A tensor over a storage of ``count`` float32."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + whole(count) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(whole, one)) + b"t" for one in (shape, strides))
    others = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(offset) + sizes + others + b"tR"


def archive(path: Path, pickled: bytes, packing: int = zipfile.ZIP_STORED, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        file.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        file.writestr("a/version", "3\n")
        for key, data in storages.items():
            file.writestr(f"a/data/{key.strip('_')}", data)
    return path


def stream(path: Path, pickled: bytes, keys: bytes = b"](" + text("0") + b"e", data: bytes = b"") -> Path:
    content = pickled.replace(b"tQ", b"NtQ")  # in a stream a storage has a fifth part, for views
    parts = whole(torch.serialization.MAGIC_NUMBER), b"M\xe9\x03", b"}", content, keys
    path.write_bytes(b"".join(b"\x80\x02" + part + b"." for part in parts) + data)
    return path


def laughs(levels: int) -> bytes:
    """A list of ten ones, ten times that, ten times that list, ..."""
    lists = b"".join(b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(levels))
    return b"](" + b"K\x01" * 10 + b"eq\x00" + lists


TEXT = text("a" * 50_000)
WASTE = {
    "object numbers": b"K\x00r\xff\xff\xff\x0f",
    "a nested key": b"}" + b")" + b"\x85" * 1_000_000 + b"K\x01s",
    "nested lists": b"]" * 100_000 + b"a" * 99_999,
    "lists of lists": laughs(40),
    "dictionaries of dictionaries": b"}q\x00" + b"".join(
        b"}(K\x01h" + bytes([i]) + b"K\x02h" + bytes([i]) + b"uq" + bytes([i + 1]) for i in range(100)),
    "a gigabyte of zeros": b"cbuiltins\nbytearray\n" + whole(1 << 30) + b"\x85R",
    "a tensor by its size": b"ctorch\nFloatTensor\n" + whole(1 << 28) + b"\x85R",
    "a tensor of lists of lists": b"ctorch\nFloatTensor\n" + laughs(8) + b"\x85R",
    "a storage by its size": b"ctorch.storage\nUntypedStorage\n" + whole(1 << 30) + b"\x85R",
    "the same text as bytes": b"c_codecs\nencode\nq\x00" + TEXT + b"q\x01" + text("latin1") + b"q\x02"
    + b"h\x00h\x01h\x02\x86R" * 5000,
    "copies of a dictionary": b"](" + b"".join(b"K" + bytes([i]) for i in range(200)) + b"eq\x00"
    + b"ccollections\nCounter\nq\x01" + b"h\x01h\x00\x85R" * 50_000,
    "attributes again and again": b"}(" + b"".join(whole(i) + b"N" for i in range(20_000)) + b"uq\x00"
    + b"ccollections\nOrderedDict\nq\x01" + b"h\x01)Rh\x00b" * 20_000,
    "a name without end": b"ctorch\n" + b"a" * 100_000 + b"\n",
    "a shape of a number": tensor(16, (10**6, 10**6), (0, 0)),
    "a far offset": tensor(16, (2,), (10**12,)),
    "a shape without end": tensor(16, (2**62,) * 60, (0,) * 60),
    "a shape below none": tensor(16, (-4, -4), (1, 1)),
    "a tensor without end": tensor(10**12, (10**12,)),
    "another tensor in a tensor": tensor() + b"(" + b"K\x01" * 4 + b"tb",
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("waste", WASTE)
@pytest.mark.parametrize("container", [archive, stream])
def test_a_small_file_takes_little_memory_and_time_and_is_refused(tmp_path, container, waste, reader):
    path = tmp_path / ("a.wav.soft.pt" if reader == "units" else "a.pt")
    if container is archive:
        archive(path, WASTE[waste], _0=bytes(64))
    else:
        has_tensor = b"FloatStorage" in WASTE[waste]
        stream(path, WASTE[waste], *([] if has_tensor else [b"]"]), data=bytes(80))
    assert path.name in bounded(READERS[reader], path), "it was read"


@pytest.mark.parametrize("reader", ["checkpoint", "weights"])
def test_an_archive_that_inflates_is_refused_and_one_that_is_merely_packed_is_read(tmp_path, reader):
    wanted = torch.randn(4096)
    packed = archive(tmp_path / "a.pt", b"}" + text("w") + tensor(4096, (4096,)) + b"s", 8, _0=wanted.numpy().tobytes())
    assert torch.equal(READERS[reader](packed)["w"], wanted)
    bomb = archive(tmp_path / "b.pt", b"}" + text("w") + tensor(25 << 20, (25 << 20,)) + b"s", 8, _0=bytes(100 << 20))
    assert "10 times as large as the file" in bounded(READERS[reader], bomb)


def test_records_that_overlap_or_share_a_name_are_refused(tmp_path):
    path = archive(tmp_path / "a.pt", tensor(key="x"), x=bytes(64), X=bytes(8))
    with pytest.raises(UserError, match="several records of one name"):
        load_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02}.")
        file.writestr("a/data/0", bytes(1 << 20))
        for key in range(1, 40):  # all of them are the same bytes
            file.filelist.append(zipfile.ZipInfo(f"a/data/{key}"))
            file.filelist[-1].CRC = 0
            file.filelist[-1].file_size = file.filelist[-1].compress_size = 1 << 20
            file.filelist[-1].header_offset = file.filelist[1].header_offset
    with pytest.raises(UserError, match="10 times as large"):
        load_checkpoint(tmp_path / "b.pt")


def test_what_comes_before_or_behind_an_archive_is_refused(tmp_path):
    """Two readers of archives may find two directories in such a file."""
    data = archive(tmp_path / "a.pt", b"}").read_bytes()
    other = archive(tmp_path / "b.pt", tensor(10**9, (10**9,)), _0=bytes(64)).read_bytes()
    for changed in (other + data, data + b"more"):
        (tmp_path / "c.pt").write_bytes(changed)
        with pytest.raises(UserError, match="cannot be read as a checkpoint"):
            load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize("reader", ["checkpoint", "weights"])
@pytest.mark.parametrize("container", [archive, stream])
def test_nothing_stands_where_a_dictionarys_or_tensors_methods_do(tmp_path, container, reader):
    hidden = b"}(" + b"".join(text(name) + b"K\x01" for name in ("items", "get", "values", "__class__", "to")) + b"ub"
    inner = b"ccollections\nOrderedDict\n)R" + text("w") + tensor() + b"s" + hidden
    bytes_of_it = {"_0": bytes(64)} if container is archive else {"data": struct.pack("<q", 16) + bytes(64)}
    outer = b"ccollections\nOrderedDict\n)R" + text("model") + inner + b"s" + hidden
    found = READERS[reader](container(tmp_path / "a.pt", outer, **bytes_of_it))
    assert type(found) is type(found["model"]) is collections.OrderedDict
    assert list(found.items())[0][0] == "model" and found["model"].get("w").shape == (16,) and not vars(found["model"])


def test_many_names_of_the_same_weights_are_refused(tmp_path):
    names = b"".join(whole(i) + b"h\x00" for i in range(2000))
    many = b"}(" + b"".join(text(f"w{i}") + b"h\x01" for i in range(2000)) + b"uq\x00"
    path = archive(tmp_path / "a.pt", tensor() + b"q\x010" + many + b"0}(" + names + b"u", _0=bytes(64))
    assert "have no end" in bounded(read_weight_file, path, "RMVPE")


def test_centres_that_expand_are_refused(tmp_path):
    path = archive(tmp_path / "a.pt", b"}" + text("alto") + b"}" + text("cluster_centers_") + laughs(7) + b"ss")
    assert "a.pt" in bounded(load_cluster_model, path)
    shared = {"cluster_centers_": np.ones((500, 100))}
    torch.save({f"{n}": shared for n in range(1000)}, tmp_path / "b.pt")  # half a MB, 200 as so many tables of float32
    assert "" == bounded(load_cluster_model, tmp_path / "b.pt")


# -- honest files -----------------------------------------------------------------------------------------------------

BASE = torch.arange(24.0).reshape(4, 6)
HONEST = {
    "views": {"a": BASE, "b": BASE.T, "c": BASE[1:, ::2], "d": BASE[0, 0], "e": BASE[:0]},
    "shared": {"a": {"w": BASE}, "b": {"w": BASE}},
    "dtypes": {str(kind): BASE.to(kind) for kind in (torch.half, torch.bfloat16, torch.int8, torch.bool, torch.cfloat)},
    "parameters": collections.OrderedDict(p=torch.nn.Parameter(BASE)),
    "network": torch.nn.BatchNorm1d(3).state_dict(),
    "values": {"a": [1, 2.5, None, True, "x", b"bytes", (1, {2}), {"b": 2**70}], "c": bytearray(b"abc")},
    "sparse": {"s": BASE.to_sparse()},
    "quantized": {"q": torch.quantize_per_tensor(BASE, 0.1, 0, torch.quint8)},
    "meta": {"m": BASE.to("meta")},
    "empty": {},
    "classes": {"d": collections.defaultdict(collections.OrderedDict)},
    "size": {"s": BASE.shape, "d": torch.float32},
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("content", HONEST)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_saves_passes(tmp_path, content, zipped, protocol):
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(HONEST[content], tmp_path / "a.pt", **options)
    check_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_of_other_programs_pass(tmp_path, layout):
    sizes = {"layers": 1, "width": 64, "convolutions": 8, "final": 16}
    check_torch_file(write_contentvec_checkpoint(tmp_path / "a.pt", layout=layout, **sizes))


def test_a_file_without_checksums_passes(tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this PyTorch always writes them")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": BASE}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(tmp_path / "a.pt")["a"], BASE)
