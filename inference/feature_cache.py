"""A cache of units and F0 by content, so that a song is analysed once for all speakers and keys."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from modules.atomic_file import atomic_path
from modules.console import get_logger

log = get_logger("convert")

KEY = "[0-9a-f]{40}"
VERSION = 1  # changes when the same sound and settings give other features
IN_MEMORY = 256 << 20  # bytes; the units of 28 minutes with 768 features
ON_DISK = 4 << 30  # bytes


class FeatureCache:
    """Float32 arrays by key: the most recently used in memory and, with ``folder``, on disk.

    Threads and processes can share it: files appear whole, and two that compute the same write the same. When a limit
    is exceeded, the entries that were used longest ago are dropped.

    Args:
        folder: where entries outlive the process; None for memory only.
        in_memory, on_disk: limits in bytes.
    """

    def __init__(self, folder: str | Path | None = None, in_memory: int = IN_MEMORY, on_disk: int = ON_DISK):
        self.folder = None if folder is None else Path(folder)
        self.in_memory, self.on_disk = in_memory, on_disk
        self._entries: OrderedDict[str, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._unchecked = on_disk  # bytes written since the folder was last measured; it is measured at first
        self._lock = threading.Lock()

    def get(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array of ``key``, read-only; ``compute`` makes it if the cache lacks it."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        found = self._read(key)
        if found is None:
            found = np.ascontiguousarray(compute(), np.float32)
            self._write(key, found)
        found.flags.writeable = False
        self._remember(key, found)
        return found

    def _remember(self, key: str, array: np.ndarray) -> None:
        with self._lock:
            if key in self._entries or array.nbytes > self.in_memory:
                return
            self._entries[key] = array
            self._bytes += array.nbytes
            while self._bytes > self.in_memory:
                self._bytes -= self._entries.popitem(last=False)[1].nbytes

    def _read(self, key: str) -> np.ndarray | None:
        """Return the array from disk, marked as used now; None if it is not there or not whole."""
        folder = self.folder
        if folder is None:
            return None
        path = folder / f"{key}.npy"
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        with contextlib.suppress(OSError):  # a folder of another user
            os.utime(path)
        return array if array.dtype == np.float32 else None

    def _write(self, key: str, array: np.ndarray) -> None:
        folder = self.folder
        if folder is None:
            return
        try:
            with atomic_path(folder / f"{key}.npy") as temporary:
                np.save(temporary, array, allow_pickle=False)
        except OSError as error:
            log.warning("the cache %s cannot be written (%s); the conversion goes on without it", folder, error)
            self.folder = None
            return
        with self._lock:
            self._unchecked += array.nbytes
            if self._unchecked > self.on_disk / 16:
                self._unchecked = 0
                self._delete_oldest(folder)

    def _delete_oldest(self, folder: Path) -> None:
        """Delete the entries that were used longest ago until they are within the limit; other files stay."""
        files = []
        for path in folder.glob("*.npy"):
            if re.fullmatch(KEY, path.stem):
                with contextlib.suppress(OSError):  # another process may delete it meanwhile
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.on_disk:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size


def content_key(wav: np.ndarray, *settings: object) -> str:
    """Return the key of what these settings make of the sound (L,): equal for equal samples only."""
    digest = hashlib.blake2b(repr((VERSION, *settings)).encode(), digest_size=20)
    digest.update(np.ascontiguousarray(wav))
    return digest.hexdigest()
