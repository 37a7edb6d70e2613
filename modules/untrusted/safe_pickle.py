"""Readers for untrusted pickles: checkpoints of other programs and object arrays. They run no code of the file.

A pickle is a small program that can only use the names that it may import. Each reader handles a name in one of three
ways:

* names of data (tensors, ordered dictionaries, numbers) map to torch's or our own functions;
* names that such files are known to contain besides data (configurations of fairseq and omegaconf, argparse's
  Namespace, numpy's counters) map to an inert stand-in, which imports, calls and stores nothing;
* any other name, for instance ``os.system``, makes the reader refuse the file.

The readers differ in the names that they accept: whole checkpoints, arrays only, or classes chosen by the caller.
"""

from __future__ import annotations

import collections
import contextlib
import io
import mmap
import os
import pickle
import tarfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modules.console import UserError
from modules.untrusted.array_pickle import ArrayUnpickler, Function, RefusedError, bounded_encode, plain, read_header
from modules.untrusted.pickle_scan import scan_pickle
from modules.untrusted.torch_file import ZIP, is_compressed, load_torch


def load_torch_inert(path: str | Path) -> Any:
    """Read a file of ``torch.save``: tensors on the CPU, other objects as inert stand-ins.

    Reads both containers: the zip archive (memory-mapped, so that the optimizer's gigabyte in a training checkpoint is
    not read) and the older stream of pickles. This is for weight files of other programs, whose objects
    ``torch.load(weights_only=True)`` refuses.

    Raises:
        UserError: if the file is missing, truncated, not a checkpoint, or contains a name that is refused.
    """
    return _load_torch(Path(path), _INERT_PICKLE)


def load_torch_arrays(path: str | Path) -> Any:
    """Read a file of ``torch.save`` that holds only dictionaries, lists, text, numbers and numpy arrays.

    Raises UserError as ``load_torch_inert`` does.
    """
    return _load_torch(Path(path), _ARRAY_PICKLE, finish=_plain_tree)


def load_pickle(path: str | Path, stand_ins: Callable[[str, str], type | None]) -> Any:
    """Read a pickle of dictionaries, lists, text, numbers, bytes, and objects of stand-in classes.

    ``stand_ins(module, name)`` returns the class to use in place of the named one, or None to refuse it. The class must
    have ``__setstate__``, which gets the object's state. Takes memory of the file's size plus about 250 bytes per byte
    of small objects. Raises UserError as ``load_torch_inert`` does.
    """
    with _user_errors(path := Path(path)), open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            raise EOFError
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scan_pickle(data)
            return _ChosenUnpickler(data, stand_ins).load()


def _load_torch(path: Path, reader: Any, finish: Callable[[Any], Any] = lambda value: value) -> Any:
    with _user_errors(path):
        mapped = _is_zip_checkpoint(path) and not is_compressed(path)
        return finish(load_torch(str(path), mmap=mapped, weights_only=False, pickle_module=reader))


@contextlib.contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Convert any exception from reading ``path`` to a UserError that describes the file's fault."""
    try:
        yield
    except UserError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except RefusedError as error:
        raise UserError(f"{path} is refused: its pickle uses {error}, which no such file needs") from None
    except Exception as error:  # a damaged or hostile pickle can raise anything
        if _is_truncation(error):
            size = f"{path.stat().st_size:,} bytes"
            raise UserError(f"{path} looks truncated, its size is {size}; get or make it anew") from None
        raise UserError(f"{path} is damaged and cannot be read: {_first_line(error)}") from None


def load_object_array(path: str | Path) -> np.ndarray:
    """Read an ``.npy`` file of numbers, or of dtype object whose items are numbers and arrays of numbers.

    Returns an array of the file's shape, of numbers or of objects (Python numbers and nested arrays). Takes memory of
    the file's size for numbers, and at most about 250 times that for objects.
    Raises UserError if the file is missing or damaged, or its pickle names anything but numpy's arrays and numbers.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            shape, array = read_header(file)
            if array is None:
                scan_pickle(data := file.read())
                array = plain(ArrayUnpickler(io.BytesIO(data)).load())
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError(f"its header gives the shape {shape}")
        return array
    except FileNotFoundError:
        raise UserError(f"there is no {path}") from None
    except RefusedError as error:
        raise UserError(f"{path} is refused: its pickle uses {error}, which no array of numbers needs") from None
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"{path} is damaged and cannot be read as an array: {_first_line(error)}") from None


# -- checkpoints ------------------------------------------------------------------------------------------------------


class Inert:
    """Stand-in for an object of another program. Accepts any arguments, items and state, and stores none."""

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


_DATA = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): Function(torch.device),
    ("torch._utils", "_rebuild_tensor"): Function(torch._utils._rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(torch._utils._rebuild_tensor_v2),
    ("torch._utils", "_rebuild_parameter"): Function(torch._utils._rebuild_parameter),
}
_INERT_PACKAGES = frozenset(("argparse", "enum", "fairseq", "hydra", "numpy", "omegaconf", "pathlib", "typing"))
_INERT_NAMES = {
    "builtins": frozenset(
        "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple "
        "long unicode xrange".split()  # Python 2's names, which torch's pickle protocol still writes
    ),
    "collections": frozenset(("Counter", "defaultdict", "deque")),
    "copyreg": frozenset(("_reconstructor",)),
    "_codecs": frozenset(("encode",)),
    "_operator": frozenset(("getitem",)),
}
_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "operator": "_operator"}


class _InertUnpickler(pickle.Unpickler):
    """Reads a checkpoint's pickle. torch adds the storages by persistent ids, which import no names."""

    def find_class(self, module: str, name: str) -> Any:
        module = _PYTHON_2_MODULES.get(module, module)
        if (module, name) in _DATA:
            return _DATA[module, name]
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if module.partition(".")[0] in _INERT_PACKAGES or name in _INERT_NAMES.get(module, ()):
            return Inert
        raise RefusedError(f"{module}.{name}")


def _load_inert(file: Any, **options: Any) -> Any:
    return _InertUnpickler(file, **options).load()


_INERT_PICKLE = types.SimpleNamespace(__name__="inert_pickle", Unpickler=_InertUnpickler, load=_load_inert)


def _is_zip_checkpoint(path: Path) -> bool:
    """Return whether ``path`` is a zip archive, and not torch's older stream of pickles.

    Raises UserError for files that torch.load passes to other readers: TorchScript archives, which are programs, and
    tar archives, which it unpacks to disk.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == ZIP:
            if "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records():
                raise UserError(f"{path} is refused: it is a TorchScript program and not a PyTorch checkpoint")
            return True
        if not start:
            raise EOFError
        if not start.startswith(b"\x80") or tarfile.is_tarfile(file):
            raise UserError(f"{path} is not a PyTorch checkpoint: it starts with {start!r}; get the file anew")
        return False


def _is_truncation(error: Exception) -> bool:
    words = ("truncated", "unexpected eof", "ran out of input", "central directory", "not a zip", "invalid argument")
    return isinstance(error, EOFError) or any(word in str(error).lower() for word in words)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# -- arrays -----------------------------------------------------------------------------------------------------------


def _load_arrays(file: Any, **options: Any) -> Any:
    return ArrayUnpickler(file, **options).load()


_ARRAY_PICKLE = types.SimpleNamespace(__name__="array_pickle", Unpickler=ArrayUnpickler, load=_load_arrays)


def _plain_tree(value: Any) -> Any:
    """Copy dictionaries and lists, with arrays and numbers for stand-ins. ``load_torch`` has bounded the size."""
    if isinstance(value, dict):
        return {_plain_tree(key): _plain_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain_tree(item) for item in value)
    return value if value is None or isinstance(value, str) else plain(value)


# -- objects of chosen classes ----------------------------------------------------------------------------------------


class _ChosenUnpickler(pickle.Unpickler):
    """Reads a pickle whose only objects are of stand-in classes chosen by the caller."""

    def __init__(self, data: mmap.mmap, stand_ins: Callable[[str, str], type | None]):
        super().__init__(data)
        self.stand_ins = stand_ins
        self.encode = Function(bounded_encode(len(data)))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self.encode
        stand_in = self.stand_ins(module, name)
        if stand_in is None:
            raise RefusedError(f"{module}.{name}")
        return stand_in
