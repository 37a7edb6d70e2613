"""``feature_and_index.pkl``: a pickle of {speaker id: faiss IndexIVFFlat}, in the format of so-vits-svc 4.1.

After the pickle, which other readers ignore, follow the speakers' names: {name: id} in JSON, its length and a marker.

The unpickler allows one class, a stand-in for faiss's index. The bytes of each index are checked before faiss reads
them, because faiss trusts the sizes in its format, and the format can make it open other files.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from modules.atomic_file import output_path
from modules.console import UserError, option
from modules.untrusted.safe_pickle import load_pickle

MAKER = "python train_index.py"

# Layouts of faiss's format. Index header: kind, feature size, vectors, two unused, is trained, metric (1: L2).
_HEADER = "<4siqqq?i"
_LISTS = "<4sQQ4sQ"  # lists: kind, count, bytes per vector, layout of the sizes that follow, their count

_NAMES_END, _NAMES_MARK = "<I8s", b"speakers"  # the file ends with the length of the JSON and this marker
_MAX_NAMES_BYTES = 1 << 20


class _SavedIndex:
    """Stand-in for faiss.IndexIVFFlat in a pickle; its state is one bytes object in faiss's file format."""

    __slots__ = ("data",)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or list(state) != ["this"] or not isinstance(state["this"], bytes):
            raise ValueError("the state of an index is not as faiss writes it")
        self.data = state["this"]


def _stand_in(module: str, name: str) -> type | None:
    """Return the stand-in for IndexIVFFlat of any faiss module, since the module's name differs between builds."""
    return _SavedIndex if module.split(".")[0] == "faiss" and name == "IndexIVFFlat" else None


def read_indexes(path: str | Path) -> dict[int, faiss.IndexIVFFlat]:
    """Read speaker id -> index; all have the same feature size.

    Takes memory of about three times the file's size, and at most 20 times for an index of very many short lists.
    Raises UserError if the file is missing or damaged, or holds any other object.
    """
    path = Path(path)
    if not path.is_file():
        without = f"a conversion with {option('cluster_infer_ratio', 0)} needs none"
        raise UserError(f"there is no file {path}; '{MAKER}' makes it, and {without}")
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            without = f"a conversion takes centres without {option('feature_retrieval', True)}"
            raise UserError(f"{path} is no feature index but a PyTorch file; {without}")
    saved = load_pickle(path, _stand_in)
    if not isinstance(saved, dict) or not saved:
        raise UserError(f"{path} holds no indexes by speaker; run '{MAKER}' again")
    indexes, left = {}, path.stat().st_size
    for speaker_id in list(saved):
        index = saved.pop(speaker_id)
        if type(speaker_id) is not int or type(index) is not _SavedIndex or not hasattr(index, "data"):
            raise UserError(f"{path} holds something else than indexes by speaker number; run '{MAKER}' again")
        left -= len(index.data)
        if left < 0:
            raise UserError(f"{path} gives several speakers the same index; run '{MAKER}' again")
        indexes[speaker_id] = _restore(index.data, f"{path}, speaker {speaker_id}")
    if len({index.d for index in indexes.values()}) > 1:
        raise UserError(f"{path} mixes features of several sizes; run '{MAKER}' again")
    return indexes


def read_names(path: str | Path) -> dict[str, int]:
    """Read speaker name -> id from ``feature_and_index.pkl``; empty if the file holds no names, like published files.

    Raises UserError if the names are damaged.
    """
    end_size = struct.calcsize(_NAMES_END)
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - end_size))
        end = file.read()
        length, mark = struct.unpack(_NAMES_END, end) if len(end) == end_size else (0, b"")
        if mark != _NAMES_MARK:
            return {}
        try:
            if length > min(_MAX_NAMES_BYTES, size - end_size):
                raise ValueError
            file.seek(size - end_size - length)
            names = json.loads(file.read(length))
            if not isinstance(names, dict) or any(type(row) is not int for row in names.values()):
                raise ValueError
        except (ValueError, RecursionError):
            raise UserError(f"{path} is damaged: its speakers' names cannot be read; run '{MAKER}' again") from None
    return names


def _restore(data: bytes, where: str) -> faiss.IndexIVFFlat:
    try:
        if not _is_flat_index(data):
            raise ValueError("it is no IVF,Flat index with its vectors inside")
        index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        if type(index) is not faiss.IndexIVFFlat:
            raise ValueError(f"it is of the kind {type(index).__name__}")
    except (RuntimeError, ValueError, OverflowError, MemoryError, struct.error) as error:
        why = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"{where}: the index is damaged or of another kind ({why}); run '{MAKER}' again") from None
    return index


def _is_flat_index(data: bytes) -> bool:
    """Return whether the bytes are an index of full vectors in in-memory lists, with consistent sizes.

    The layout: header, (lists, nprobe), the lists' centres with their own header, a direct map, the lists. Raises
    struct.error or ValueError if the bytes are truncated.
    """
    reader = _Reader(data)
    kind, size, vectors, _, _, trained, metric = reader.read(_HEADER)
    lists, _ = reader.read("<QQ")
    centres_kind, centres_size, centres, *_, centres_metric = reader.read(_HEADER)
    numbers = reader.read_array("<f4", *reader.read("<Q"))
    mapped, entries = reader.read("<BQ")
    locations = reader.read_array("<u8", entries)
    lists_kind, list_count, vector_bytes, layout, count = reader.read(_LISTS)
    sizes = reader.read_array("<u8", count)
    if layout == b"sprs":  # pairs of list number and size; all other lists are empty
        which, sizes = sizes.reshape(-1, 2).T
        consistent = len(which) == len(set(which.tolist())) and all(number < lists for number in which.tolist())
    else:
        which, consistent = slice(None), layout == b"full" and count == lists
    return (
        consistent
        and (kind, centres_kind, lists_kind) == (b"IwFl", b"IxF2", b"ilar")
        and (metric, centres_metric, trained) == (1, 1, True)
        and size == centres_size > 0
        and lists == centres == list_count > 0
        and len(numbers) == lists * size
        and vector_bytes == 4 * size
        and vectors == sum(sizes.tolist())
        and len(data) - reader.offset == vectors * (vector_bytes + 8)
        and _is_direct_map(mapped, locations, _counts(lists, which, sizes))
    )


def _counts(lists: int, which: NDArray[np.uint64] | slice, sizes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    counts = np.zeros(lists, np.uint64)
    counts[which] = sizes
    return counts


def _is_direct_map(kind: int, locations: NDArray[np.uint64], counts: NDArray[np.uint64]) -> bool:
    """Return whether a direct map, from vectors to their locations, is absent (kind 0) or a valid array (kind 1).

    A location has the list's number in its upper half and the position in the list in its lower half. A hash table
    (kind 2) is refused. ``counts`` are the numbers of vectors in the lists.
    """
    if kind == 0:
        return len(locations) == 0
    lists, offsets = locations >> np.uint64(32), locations & np.uint64(0xFFFFFFFF)
    known = kind == 1 and len(locations) == counts.sum() and bool((lists < len(counts)).all())
    return known and bool((offsets < counts[lists]).all())


class _Reader:
    """Reads values from bytes, one after the other."""

    def __init__(self, data: bytes):
        self.data, self.offset = data, 0

    def read(self, layout: str) -> tuple:
        values = struct.unpack_from(layout, self.data, self.offset)
        self.offset += struct.calcsize(layout)
        return values

    def read_array(self, dtype: str, count: int) -> NDArray:
        if count > len(self.data):
            raise ValueError(f"a table of {count} numbers")
        values = np.frombuffer(self.data, dtype, count, self.offset) if count else np.empty(0, dtype)
        self.offset += values.nbytes
        return values


def write_indexes(
    path: str | Path, indexes: Iterable[tuple[int, faiss.IndexIVFFlat]], names: Mapping[str, int] | None = None
) -> None:
    """Write (speaker id, index) pairs one at a time, and read the file back before renaming it to ``path``.

    ``names`` maps the speakers' names to ids. The pickle is written by hand: ``pickle.dump`` would name the compiled
    module of the installed faiss, whereas every faiss has ``faiss.IndexIVFFlat``. Raises UserError if the file cannot
    be written.
    """
    with output_path(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(pickle.PROTO + b"\x04" + pickle.EMPTY_DICT)
            for speaker_id, index in indexes:
                data = faiss.serialize_index(index)
                file.write(pickle.BININT + struct.pack("<i", speaker_id))
                file.write(pickle.GLOBAL + b"faiss\nIndexIVFFlat\n" + pickle.EMPTY_TUPLE + pickle.NEWOBJ)
                file.write(pickle.EMPTY_DICT + pickle.SHORT_BINUNICODE + b"\x04this")
                file.write(pickle.BINBYTES8 + struct.pack("<Q", len(data)))
                file.write(data)
                file.write(pickle.SETITEM + pickle.BUILD + pickle.SETITEM)
            file.write(pickle.STOP)
            names_json = json.dumps(dict(names or {})).encode()
            file.write(names_json + struct.pack(_NAMES_END, len(names_json), _NAMES_MARK))
        read_indexes(temporary)
