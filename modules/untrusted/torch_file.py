"""Checks untrusted files of ``torch.save`` before ``torch.load`` reads them.

``torch.load(weights_only=True)`` runs no code of a file, but allocates whatever sizes the file states: an archive
whose records inflate, a tensor of a million elements over one number, a call that makes a gigabyte of bytes. A dry run
first reads the pickle with stand-ins for all classes and functions, and compares their arguments with the file's size.
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
PICKLES = 5  # in a file of torch before 1.6: three about the format, the content, the list of tensors; then their bytes
MOST_INFLATED = 10  # times the file's size; torch itself does not compress records
LONGEST_NAME = 500  # characters
REPEATED = 4  # how often, on average, a pickle may pass each of its bytes to a function
ITEM_SIZES = {
    "BFloat16": 2, "Bool": 1, "Byte": 1, "Char": 1, "ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Float": 4,
    "Half": 2, "Int": 4, "Long": 8, "QInt32": 4, "QInt8": 1, "QUInt2x4": 1, "QUInt4x2": 1, "QUInt8": 1, "Short": 2,
    "Untyped": 1,
}  # fmt: skip


def load_torch(path: str | Path, **options: Any) -> Any:
    """Check a file and read it with ``torch.load`` on the CPU; ``options`` are passed to torch.load.

    The tensors take memory of at most ten times the file's size (one time if torch wrote the file); the pickle, usually
    some kilobytes, takes up to about 450 times its size. Attributes of dictionaries and tensors are dropped, because
    they could shadow methods. Raises what ``check_torch_file`` and ``torch.load`` raise.
    """
    check_torch_file(path)
    content = torch.load(path, map_location="cpu", **options)
    _drop_attributes(content)
    return content


def check_torch_file(path: str | Path) -> None:
    """Make sure that ``torch.load`` takes memory and time in proportion to the file's size.

    Raises OSError if the file cannot be opened, EOFError or zipfile.BadZipFile if it is truncated, and any other
    exception, usually ValueError, if it is of another kind, damaged, or made to waste memory.
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
    """Return whether an archive has compressed records, which cannot be memory-mapped."""
    with zipfile.ZipFile(path) as archive:
        return any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())


def _check_archive(file: io.BufferedReader) -> None:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        _refuse_other_directories(file, archive, size)
        records = {record.filename: record.file_size for record in archive.infolist()}
        if sum(record.file_size for record in archive.infolist()) > MOST_INFLATED * size:
            raise ValueError(f"its records would be more than {MOST_INFLATED} times as large as the file")
        if len({name.lower() for name in records}) < len(archive.infolist()):  # torch ignores case
            raise ValueError("it has several records of one name")
        folder = next(iter(records), "").partition("/")[0]
        content = archive.getinfo(f"{folder}/data.pkl")
        content.CRC = None  # files written under torch.serialization.set_crc32_options(False) have none
        pickled = archive.read(content)
    scan_pickle(pickled)
    prefix = f"{folder}/data/"
    _dry_run(pickled, {name.removeprefix(prefix): n for name, n in records.items() if name.startswith(prefix)})


def _refuse_other_directories(file: io.BufferedReader, archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for an archive in which zipfile and torch's reader may find different directories.

    They search the directory in different ways, with the same result if it ends the file.
    """
    file.seek(max(0, size - 42))
    end = file.read().rjust(42, b"\0")
    found = end[:4] == b"PK\6\7"  # the locator of a 64-bit end record, which holds its position
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
            raise ValueError("it is a pickle, but not one of torch")
    needed = sum(storage.size for storage in storages.values())
    if needed > len(data) - at:
        raise EOFError(f"unexpected EOF: its tensors take {needed:,} bytes, {len(data) - at:,} are there")
    if not isinstance(results[-1], list) or set(results[-1]) != set(storages):
        raise ValueError("its list of tensors does not match its content")


# -- the dry run ----------------------------------------------------------------------------------------------------


def _dry_run(pickled: bytes, records: Mapping[str, int]) -> None:
    _DryRun(pickled, records).run()


class _Storage:
    """The bytes of one or more tensors."""

    def __init__(self, size: int, item_size: int):
        self.size, self.item_size = size, item_size


class _StorageType:
    """Stand-in for the class of a storage, which a pickle may only name."""

    __slots__ = ("item_size",)

    def __init__(self, item_size: int):
        self.item_size = item_size

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes the type of a tensor")


class _TensorType:
    """Stand-in for the class of a tensor. Refuses calls, which could make a tensor of any size."""

    __slots__ = ()

    def __new__(cls, *arguments: Any) -> _TensorType:
        raise ValueError("it makes a tensor from something else than the bytes of the file")


class _Tensor:
    """Stand-in for a tensor whose size fits its storage."""

    __slots__ = ("size",)

    def __init__(self, size: int):
        self.size = size

    def __setstate__(self, state: Any) -> None:
        raise ValueError("it changes a tensor after making it")


class _DryRun(pickle.Unpickler):
    """Reads the pickle of a checkpoint into stand-ins and counts the arguments that it passes to functions.

    ``records`` are the sizes of an archive's storages by key; None if the storages follow later.
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
        if len(module) + len(name) > LONGEST_NAME:  # torch formats an error message about it in quadratic time
            raise ValueError("its pickle has a name that is too long")
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
        """Count more items, bytes or elements passed to functions. Raises ValueError above the limit."""
        self.left -= count
        if self.left < 0:
            raise ValueError("its pickle expands to more data than the file has")

    def tensor(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *others: Any) -> _Tensor:
        dtypes = [one for one in others if isinstance(one, torch.dtype)]
        item_size = dtypes[0].itemsize if dtypes else storage.item_size
        elements, last = 1, _whole(offset)
        for length, stride in zip(shape, strides, strict=True):
            elements *= _whole(length)
            last += (length - 1) * _whole(stride)
            if max(elements, last) > storage.size and 0 not in shape:
                break
        if 0 not in shape and max(elements, last + 1) * item_size > storage.size:
            raise ValueError(f"its tensor of the shape {list(shape)[:8]} has more elements than the file has bytes for")
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
        """Make a stand-in class. ``made_by_size``: an integer argument may be a size."""
        dry_run = self

        def count(*arguments: Any) -> None:
            for one in arguments:
                if hasattr(type(one), "__len__"):  # not a class such as OrderedDict itself
                    dry_run.take(len(one))
                elif made_by_size and isinstance(one, int):
                    dry_run.take(abs(one))

        class StandIn(base):
            """Accepts any arguments, items and state; only a dictionary stores its items."""

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
        raise ValueError("its tensors have offsets or sizes that are not whole numbers")
    return number


# -- afterwards -------------------------------------------------------------------------------------------------------


def _drop_attributes(content: Any) -> None:
    """Empty the ``__dict__`` of every dictionary and tensor, since an attribute ``items`` or ``get`` would shadow the
    method."""
    waiting, seen = [content], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict | torch.Tensor):
            getattr(part, "__dict__", {}).clear()
        waiting += parts_of(part)
