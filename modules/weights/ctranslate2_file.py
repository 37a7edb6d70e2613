"""The tensors of a CTranslate2 model, ``model.bin``, without the library.

The format is that of CTranslate2's ``model_spec.py``, binary version 6 and before: little-endian numbers; a string is a
16-bit length and as many bytes, the last of them zero.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from modules.console import UserError

VERSIONS = range(4, 7)  # of the binary format; earlier ones store types differently
DTYPES = {0: torch.float32, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}
MOST_DIMENSIONS = 8


def read_ctranslate2(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Read the name of a model's kind, such as ``WhisperSpec``, and its tensors by name.

    Raises UserError if the file is truncated, damaged, or of an unknown version.
    """
    with open(path, "rb") as file:
        size = Path(path).stat().st_size
        try:
            return _read(file, size)
        except (ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{path} is no CTranslate2 model, or is damaged ({error}); fetch it again") from None


def _read(file: BinaryIO, size: int) -> tuple[str, dict[str, Tensor]]:
    (version,) = _unpack(file, "<I")
    if version not in VERSIONS:
        raise ValueError(f"version {version} of the format is unknown")
    kind = _string(file)
    _, count = _unpack(file, "<II")  # the revision of the kind, and the number of tensors
    return kind, dict(_tensor(file, size) for _ in range(count))


def _tensor(file: BinaryIO, size: int) -> tuple[str, Tensor]:
    name = _string(file)
    (dimensions,) = _unpack(file, "<B")
    if dimensions > MOST_DIMENSIONS:
        raise ValueError(f"'{name}' has {dimensions} dimensions")
    *shape, code, length = _unpack(file, f"<{dimensions}IBI")
    if length > size - file.tell():
        raise ValueError(f"the file ends within '{name}'")
    values = bytearray(file.read(length))
    flat = torch.frombuffer(values, dtype=DTYPES[code]) if length else torch.zeros(0, dtype=DTYPES[code])
    return name, flat.reshape(shape)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return _exactly(file, length)[:-1].decode()


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))


def _exactly(file: BinaryIO, length: int) -> bytes:
    found = file.read(length)
    if len(found) < length:
        raise ValueError("the file is truncated")
    return found
