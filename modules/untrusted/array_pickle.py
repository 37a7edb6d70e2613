"""Pickles inside ``.npy`` files of dtype object: writes them for every numpy version, reads them without running code.

Reading takes memory of a small multiple of the file's size: even if a pickle refers to the same bytes or items several
times, all arrays together may not be larger than the file.
"""

from __future__ import annotations

import functools
import math
import os
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

LONGEST_HEADER = 10_000  # bytes; numpy's own limit


class RefusedError(Exception):
    """A pickle names a class or function that is not allowed; the message is that name."""


class Function:
    """Wraps a function for a pickle, which can call it but not set its attributes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("a change of a function")


# -- writing ----------------------------------------------------------------------------------------------------------


def write_mel_and_shift(file: BinaryIO, mel: NDArray[np.float32], shift: float) -> None:
    """Write an object array (2,) of a mel (T, M) and its shift in semitones, for ``np.load(allow_pickle=True)``."""
    pair = np.empty(2, dtype=object)
    pair[:] = mel, shift
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(pair))
    _Pickler(file, protocol=4).dump(pair)


class _Pickler(pickle.Pickler):
    """Pickles arrays as ``numpy.ndarray``; numpy 2's own pickles name a module that numpy 1.23 does not have."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray:
            return np.ndarray, ((0,), "b"), value.__reduce__()[2]
        return NotImplemented


# -- reading ----------------------------------------------------------------------------------------------------------


class ArrayUnpickler(pickle.Unpickler):
    """Reads the pickle in an ``.npy`` file, or of arrays saved by torch, with our own types in place of numpy's."""

    def __init__(self, file: BinaryIO, **options: Any):
        super().__init__(file, **options)
        position = file.tell()
        size = file.seek(0, os.SEEK_END) - position
        file.seek(position)
        array = Function(functools.partial(_Array, _Allowance(size)))
        self._allowed = {
            ("numpy", "ndarray"): array,
            ("numpy", "dtype"): Function(_Dtype),
            ("numpy.core.multiarray", "_reconstruct"): array,
            ("numpy.core.multiarray", "scalar"): Function(_scalar),
            ("_codecs", "encode"): Function(bounded_encode(size)),
        }

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in self._allowed:
            raise RefusedError(f"{module}.{name}")
        return self._allowed[module, name]


class _Allowance:
    """Counts the bytes or items that a pickle of ``size`` bytes may still make; regular ones make at most ``size``."""

    def __init__(self, size: int):
        self.size = size

    def take(self, count: int) -> None:
        self.size -= count
        if self.size < 0:
            raise ValueError("its pickle expands to more data than the file has")


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Read the shape and the array of an ``.npy`` file; the array is None for dtype object, and its pickle comes next.

    Raises ValueError, or what numpy raises, if the header is invalid or the file has fewer bytes than it states.
    """
    version = np.lib.format.read_magic(file)
    digits = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(digits, "little") > LONGEST_HEADER:
        raise ValueError("its header is longer than any that numpy writes")
    file.seek(-len(digits), os.SEEK_CUR)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        return shape, None
    there = os.fstat(file.fileno()).st_size - file.tell()
    if dtype.kind not in "biufcSU" or min(shape, default=0) < 0 or not dtype.itemsize:
        raise ValueError(f"it has the dtype {dtype} and the shape {shape}, which is no array of numbers")
    if math.prod(shape) * dtype.itemsize > there:
        raise ValueError(f"its header gives the shape {shape} of {dtype}, but only {there:,} bytes follow")
    flat = np.fromfile(file, dtype, math.prod(shape))
    return shape, flat.reshape(shape, order="F" if by_columns else "C")


class _Dtype:
    """Stand-in for ``numpy.dtype`` in a pickle: numbers or object, without fields."""

    def __init__(self, code: str, *_: Any):
        if code.lstrip("<>|=")[:1] not in set("?bfiuO"):
            raise RefusedError(f"the dtype {code}")
        self.is_object = "O" in code
        self.dtype = np.dtype(object if self.is_object else code)
        if self.dtype.kind == "V":
            raise RefusedError(f"the dtype {code}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stand-in for ``numpy.ndarray`` in a pickle; ``__setstate__`` sets the array."""

    def __init__(self, allowance: _Allowance, *_: Any):
        self.allowance = allowance
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, data = state
        self.allowance.take(len(data))
        if dtype.is_object:  # items are always in C order
            self.value = np.empty(len(data), dtype=object)
            for index, item in enumerate(data):
                self.value[index] = plain(item)
            self.value = self.value.reshape(shape)
        else:
            flat = np.frombuffer(data, dtype.dtype).astype(dtype.dtype.newbyteorder("="))
            self.value = flat.reshape(shape, order="F" if by_columns else "C")


def plain(value: Any) -> Any:
    """Return the array or number behind a stand-in. Raises RefusedError for anything else."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, bool | int | float | np.generic):
        return value
    raise RefusedError(f"an item of the type {type(value).__name__}")


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.dtype)[0]


def bounded_encode(size: int) -> Callable[[str, str], bytes]:
    """Return a ``_codecs.encode``, with which older protocols write bytes, that makes at most ``size`` bytes in all."""
    allowance = _Allowance(size)

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise RefusedError(f"the encoding {encoding}")
        allowance.take(len(text))
        return text.encode("latin1")

    return encode
