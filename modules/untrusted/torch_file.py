"""Checks files of ``torch.save`` from untrusted sources before ``torch.load`` reads them.

``torch.load(weights_only=True)`` runs no code of a file, but allocates whatever sizes the file states: an archive
whose records inflate, a tensor of a million elements over one number, a call that makes a gigabyte of bytes. Here the
pickle is first read with stand-ins for all classes and functions that it names, and their arguments must fit the file.
"""

from __future__ import annotations

import io
import mmap
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from modules.untrusted.array_pickle import Function
from modules.untrusted.pickle_scan import scan_pickle
from modules.untrusted.tree_bounds import check_tree, parts_of

ZIP = b"PK\3\4"
PICKLES = 5  # of a file of torch before 1.6, before its tensors' bytes: three of its format, the content, the tensors
MOST_INFLATED = 10  # times the size of the file; torch stores its records as they are
LONGEST_NAME = 500  # characters
REPEATED = 4  # how often a pickle may hand over each of its bytes to what it calls, on average
ITEM_SIZES = {
    "BFloat16": 2, "Bool": 1, "Byte": 1, "Char": 1, "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Float": 4,
    "Half": 2, "Int": 4, "Long": 8, "QInt32": 4, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1, "Short": 2,
    "Untyped": 1,
}  # fmt: skip


def load_torch(path: str | Path, **options: Any) -> Any:
    """``torch.load`` on the CPU, of a file that has been checked; ``options`` are those of torch.load.

    Memory is at most ten times the file's size for its tensors (once, where torch wrote it), which are never larger
    than the bytes that they are made of, and some 450 times that of its pickle, which is some kilobytes beside them.
    Attributes of dictionaries and tensors are dropped, which could stand where their methods do. Raises what
    ``check_torch_file`` and ``torch.load`` raise.
    """
    check_torch_file(path)
    content = torch.load(path, map_location="cpu", **options)
    _drop_attributes(content)
    return content


def check_torch_file(path: str | Path) -> None:
    """Make sure that ``torch.load`` takes memory and time in proportion to the file's size.

    Raises OSError when it cannot be opened, EOFError or zipfile.BadZipFile when its end is missing, and any other
    error, ValueError most of all, when it is of another kind, damaged, or made to waste memory.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        if not start:
            raise EOFError("it is empty")
        if start == ZIP:
            _check_archive(file)
        elif start[:1] != b"\x80" or tarfile.is_tarfile(path):
            raise ValueError(f"it starts with {start!r}, as no checkpoint does")
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_stream(data)


def is_compressed(path: str | Path) -> bool:
    """Whether an archive's records are not stored as they are, so that they cannot be mapped."""
    with zipfile.ZipFile(path) as archive:
        return any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())


def _check_archive(file: io.BufferedReader) -> None:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        _refuse_other_directories(file, archive, size)
        records = {record.filename: record.file_size for record in archive.infolist()}
        if sum(record.file_size for record in archive.infolist()) > MOST_INFLATED * size:
            raise ValueError(f"its records would be more than {MOST_INFLATED} times as large as the file")
        if len({name.lower() for name in records}) < len(archive.infolist()):  # by which torch finds them
            raise ValueError("it has several records of one name")
        folder = next(iter(records), "").partition("/")[0]
        content = archive.getinfo(f"{folder}/data.pkl")
        content.CRC = None  # torch.serialization.set_crc32_options(False) leaves it out
        pickled = archive.read(content)
    scan_pickle(pickled)
    prefix = f"{folder}/data/"
    _dry_run(pickled, {name.removeprefix(prefix): n for name, n in records.items() if name.startswith(prefix)})


def _refuse_other_directories(file: io.BufferedReader, archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for an archive that zipfile and torch's own reader may take for different ones: they look for
    its directory in different ways, which find the same one if it ends the file."""
    file.seek(max(0, size - 42))
    end = file.read().rjust(42, b"\0")
    found = end[:4] == b"PK\6\7"  # a second, 64-bit end, whose place this names
    other = int.from_bytes(end[8:16], "little") if found else size - 22
    directory_end = size - 42 - 56 if found else size - 22
    if end[20:24] != b"PK\5\6" or other != directory_end or archive.comment:
        raise ValueError("its directory is not at its end")
    first = min((record.header_offset for record in archive.infolist()), default=0)
    if archive.start_dir < 0 or first != 0:
        raise ValueError("its records do not begin where the file does")


def _check_stream(data: mmap.mmap) -> None:
    at, results, storages = 0, [], {}
    for _ in range(PICKLES):
        start, at = at, scan_pickle(data, at)
        dry_run = _DryRun(data[start:at], None)
        results.append(dry_run.run())
        storages |= dry_run.storages
        if len(results) == 1 and results[0] != torch.serialization.MAGIC_NUMBER:
            raise ValueError("it is a pickle, but not torch's")
    needed = sum(storage.size for storage in storages.values())
    if needed > len(data) - at:
        raise EOFError(f"unexpected EOF: its tensors take {needed:,} bytes, {len(data) - at:,} are there")
    if not isinstance(results[-1], list) or set(results[-1]) != set(storages):
        raise ValueError("it lists other tensors than it holds")


# -- the dry_run ----------------------------------------------------------------------------------------------------


def _dry_run(pickled: bytes, records: Mapping[str, int]) -> None:
    _DryRun(pickled, records).run()


class _Storage:
    """The bytes of one or more tensors."""

    def __init__(self, size: int, item_size: int):
        self.size, self.item_size = size, item_size


class _StorageType:
    """The class of a storage, which a pickle may name and do nothing else with."""

    __slots__ = ("item_size",)

    def __init__(self, item_size: int):
        self.item_size = item_size

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes the type of a tensor")


class _TensorType:
    """The class of a tensor, which would make one of any size, or of lists within lists. No checkpoint asks it to."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> _TensorType:
        raise ValueError("it makes a tensor of other things than the bytes of the file")


class _Tensor:
    """A tensor that fits its storage."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        self.size = size

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes a tensor that it has made")


class _DryRun(pickle.Unpickler):
    """Reads the pickle of a checkpoint into stand-ins, and counts what is handed over to what it calls.

    ``records`` are the sizes of an archive's storages by key; None, where they follow later.
    """

    def __init__(self, pickled: bytes, records: Mapping[str, int] | None):
        super().__init__(io.BytesIO(pickled), encoding="utf-8")
        self.records = records
        self.most = REPEATED * len(pickled) + 1000
        self.left = self.most
        self.storages: dict[Any, _Storage] = {}
        self.names = {
            ("torch._utils", "_rebuild_tensor"): Function(self.tensor),
            ("torch._utils", "_rebuild_tensor_v2"): Function(self.tensor),
            ("torch._utils", "_rebuild_tensor_v3"): Function(self.tensor),
            ("torch._utils", "_rebuild_qtensor"): Function(self.tensor),
            ("torch._utils", "_rebuild_parameter"): Function(lambda tensor, *_: tensor),
            ("torch._utils", "_rebuild_parameter_with_state"): Function(lambda tensor, *_: tensor),
            ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): Function(self.copy),
            ("torch._tensor", "_rebuild_from_type_v2"): Function(self.of_type),
            ("torch.tensor", "_rebuild_from_type_v2"): Function(self.of_type),
            ("torch", "Size"): Function(self.shape),
            ("collections", "OrderedDict"): self._stand_in(dict),
            ("collections", "Counter"): self._stand_in(dict),
        }
        self.other, self.sized = self._stand_in(object), self._stand_in(object, made_by_size=True)

    def run(self) -> Any:
        value = self.load()
        check_tree(value, self.most)
        return value

    def find_class(self, module: str, name: str) -> Any:
        if len(module) + len(name) > LONGEST_NAME:  # torch looks for words in its sentence about it, in quadratic time
            raise ValueError("its pickle asks for a name longer than any program has")
        if name.endswith("Storage") and name.removesuffix("Storage") in ITEM_SIZES:
            return _StorageType(ITEM_SIZES[name.removesuffix("Storage")])
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        is_torchs = module.partition(".")[0] == "torch"
        if is_torchs and name.endswith("Tensor"):
            return _TensorType
        is_sized = is_torchs or name in ("bytearray", "bytes")
        return self.names.get((module, name), self.sized if is_sized else self.other)

    def persistent_load(self, identity: Any) -> Any:
        if identity[0] == "module":
            return identity[1]
        _, kind, key, _, count, *view = identity
        if key not in self.storages:
            size = _whole(count) * kind.item_size
            if self.records is not None and size > self.records[key]:
                raise ValueError(f"its tensor {key} takes {size:,} bytes, {self.records[key]:,} are there")
            self.storages[key] = _Storage(size, kind.item_size)
        storage = self.storages[key]
        if view and view[0]:
            _, offset, count = view[0]
            there = max(0, storage.size - _whole(offset) * storage.item_size)
            return _Storage(min(there, _whole(count) * storage.item_size), storage.item_size)
        return storage

    def take(self, count: int) -> None:
        """``count`` more items, bytes or places are handed over."""
        self.left -= count
        if self.left < 0:
            raise ValueError("its pickle makes more of the same bytes than the file has")

    def tensor(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *others: Any) -> _Tensor:
        dtypes = [one for one in others if isinstance(one, torch.dtype)]
        item_size = dtypes[0].itemsize if dtypes else storage.item_size
        places, last = 1, _whole(offset)
        for length, stride in zip(shape, strides, strict=True):
            places *= _whole(length)
            last += (length - 1) * _whole(stride)
            if max(places, last) > storage.size and 0 not in shape:
                break
        if 0 not in shape and max(places, last + 1) * item_size > storage.size:
            raise ValueError(f"its tensor of the shape {list(shape)[:8]} has more places than bytes")
        return _Tensor(storage.size)

    def copy(self, tensor: _Tensor, *_: Any) -> _Tensor:
        self.take(tensor.size)
        return tensor

    def shape(self, lengths: tuple = ()) -> tuple:
        self.take(len(lengths))
        return tuple(lengths)

    def of_type(self, function: Any, kind: Any, arguments: tuple, state: Any = None) -> Any:
        return function(*arguments)

    def _stand_in(self, base: type, made_by_size: bool = False) -> type:
        """A class that stands for others. ``made_by_size``: some of them take a number for their size."""
        dry_run = self

        def count(*arguments: Any) -> None:
            for one in arguments:
                if hasattr(type(one), "__len__"):  # of a class such as OrderedDict, it counts nothing
                    dry_run.take(len(one))
                elif made_by_size and isinstance(one, int):
                    dry_run.take(abs(one))

        class StandIn(base):
            """Takes any arguments, items and state; only a dictionary keeps its items."""

            __slots__ = ()

            def __new__(cls, *arguments: Any, **named: Any) -> StandIn:
                count(*arguments, *named.values())
                return super().__new__(cls)

            def __init__(self, *arguments: Any, **named: Any):
                super().__init__(*(arguments if base is dict else ()))

            def __setstate__(self, state: Any) -> None:
                count(*(state if isinstance(state, tuple) else (state,)))

            def __call__(self, *arguments: Any) -> StandIn:
                count(*arguments)
                return self

            def append(self, item: Any) -> None:
                pass

            extend = add = append

            if base is object:

                def __setitem__(self, key: Any, value: Any) -> None:
                    pass

        return StandIn


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("its tensors have places or sizes that are no whole numbers")
    return number


# -- afterwards -------------------------------------------------------------------------------------------------------


def _drop_attributes(content: Any) -> None:
    """Empty the ``__dict__`` of every dictionary and tensor: what is called ``items`` or ``get`` in it would stand
    where the method does."""
    waiting, seen = [content], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict | torch.Tensor):
            getattr(part, "__dict__", {}).clear()
        waiting += parts_of(part)
