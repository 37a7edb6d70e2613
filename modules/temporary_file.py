"""Temporary files of atomic writes, and the deletion of those that killed runs left behind.

A temporary file is locked while it is written; the system frees the lock when the process ends in any way. A lock may
be invisible on another machine that shares the disk, so the name holds a hash of the host name. Files of other hosts,
and all files where locks are missing (Windows, some network disks), count as abandoned after a day.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MARK = "partial"
LONGEST_SUFFIX = 16  # characters that a temporary name keeps, so that it never exceeds the limit of file names
DAY = 24 * 60 * 60  # seconds; no write takes that long
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_NAME = re.compile(rf"\.([0-9a-f]{{8}})?[0-9a-f]{{8}}\.{MARK}(\.[^.]*)?")


@contextlib.contextmanager
def locked_temporary(path: Path, mark: str) -> Iterator[Path]:
    """Create an empty, locked file beside ``path`` and yield its path; delete it at the end if it still exists.

    Its name starts with a dot and keeps the suffix. Raises OSError when the folder cannot be written to.
    """
    temporary, descriptor = _create(path, mark)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def temporary_name(path: Path, mark: str) -> Path:
    """Return a unique path beside ``path`` with its suffix, cut to LONGEST_SUFFIX."""
    return path.with_name(f".{_HOST}{uuid.uuid4().hex[:8]}.{mark}{path.suffix[:LONGEST_SUFFIX]}")


def _create(path: Path, mark: str) -> tuple[Path, int | None]:
    while True:
        temporary = temporary_name(path, mark)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is None:  # Windows cannot rename an open file
            os.close(descriptor)
            return temporary, None
        if _lock(descriptor) is not False and temporary.exists():
            return temporary, descriptor
        os.close(descriptor)  # another process deleted it before it was locked


def delete_unfinished(folder: Path) -> None:
    """Delete the temporary files in ``folder`` that no process is writing. Ignores errors: a write raises them."""
    with contextlib.suppress(OSError):
        for path in find_unfinished(folder):
            _delete_abandoned(path, _NAME.fullmatch(path.name)[1])


def find_unfinished(folder: Path) -> list[Path]:
    """Return the temporary files in ``folder``, also those that a process is writing. Raises OSError."""
    with os.scandir(folder) as entries:
        return [Path(entry) for entry in entries if _NAME.fullmatch(entry.name)]


def _delete_abandoned(path: Path, host: str | None) -> None:
    with contextlib.suppress(OSError):  # already deleted, or no permission
        old = time.time() - path.lstat().st_mtime > DAY
        if not path.is_file() or not (old or host == _HOST):
            return
        if fcntl is None:
            if old:
                path.unlink()
            return
        with open(path, "ab") as file:
            locked = _lock(file.fileno())
            if locked or (locked is None and old):
                path.unlink()


def _lock(descriptor: int) -> bool | None:
    """Lock an open file. Returns False if another process holds the lock, None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
