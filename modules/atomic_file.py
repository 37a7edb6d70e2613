"""Atomic writes: a file appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from modules.console import UserError
from modules.temporary_file import MARK, delete_unfinished, locked_temporary

DISK_FULL = 1 << 20  # bytes; a failed write with less free space counts as a full disk


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block succeeds, flush the file to disk and rename it.

    If the block raises, the temporary file is deleted and an existing ``path`` stays unchanged. The temporary name
    keeps the suffix (writers choose the format by it) and starts with a dot, so that no stage reads it as input.
    """
    with atomic_paths(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_paths(*paths: str | os.PathLike, mark: str = MARK) -> Iterator[list[Path]]:
    """Yield temporary paths as ``atomic_path`` does, for files that belong together.

    All of them are flushed to disk before the first is renamed.
    Files are renamed in the given order, so a kill can separate them only between two renames. Unfinished files of
    killed runs in these folders are deleted first (modules/temporary_file.py); with another ``mark`` in the temporary
    names the caller deletes them. Raises IsADirectoryError if one of ``paths`` is a folder; nothing is written then.
    """
    targets = [Path(path) for path in paths]
    for path in targets:
        if os.path.isdir(path):  # also False for a name that is too long
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.ExitStack() as stack:
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
            _tidy(path.parent.absolute())
        temporaries = [stack.enter_context(_temporary_for(path, mark)) for path in targets]
        yield temporaries
        for temporary in temporaries:
            with open(temporary, "r+b") as file:  # Windows flushes only files that are open for writing
                os.fsync(file.fileno())
        for temporary, path in zip(temporaries, targets, strict=True):
            os.replace(temporary, path)


@contextlib.contextmanager
def _temporary_for(path: Path, mark: str) -> Iterator[Path]:
    """Yield a ``locked_temporary``; an OSError names ``path``, which the user knows, instead of the temporary file."""
    with contextlib.ExitStack() as stack:
        try:
            temporary = stack.enter_context(locked_temporary(path, mark))
        except OSError as error:
            error.filename = str(path)
            raise
        yield temporary


@functools.cache
def _tidy(folder: Path) -> None:
    """Delete the unfinished files of killed runs, before this process first writes into the folder."""
    delete_unfinished(folder)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextlib.contextmanager
def output_path(path: str | os.PathLike, library_error: type[Exception] = OSError) -> Iterator[Path]:
    """Yield an ``atomic_path``; turn failures into a UserError naming ``path``, the reason, and any file in the way.

    ``library_error`` is the exception of the library that writes. Few libraries report a full disk, so free space is
    checked here.
    """
    with output_paths(path, library_error=library_error) as (temporary,):
        yield temporary


@contextlib.contextmanager
def output_paths(*paths: str | os.PathLike, library_error: type[Exception] = OSError) -> Iterator[list[Path]]:
    """Yield ``atomic_paths``, with errors as in ``output_path``; the error names the first path that is blocked."""
    targets = [Path(path) for path in paths]
    try:
        with atomic_paths(*targets) as temporaries:
            try:
                yield temporaries
            except (OSError, library_error) as error:
                free = min(shutil.disk_usage(path.parent).free for path in targets)
                if free < DISK_FULL:  # measured while the unfinished files still take their room
                    raise OSError(errno.ENOSPC, "the disk is full") from error
                raise
    except (OSError, library_error) as error:
        path, why = next(_blocked(targets), (targets[0], reason(error)))
        raise UserError(f"{path} cannot be written: {why}") from None


def _blocked(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each path that cannot be created because a file or folder is in the way, and the reason."""
    for path in paths:
        if os.path.isdir(path):
            yield path, "it is a folder"
        if why := obstacle(path.parent):
            yield path, why


def obstacle(folder: Path) -> str | None:
    """Describe the file or dangling link in the way of ``folder`` or a folder above it; None if there is none.

    The description is a clause of the message to the user.
    """
    for path in (folder, *folder.parents):
        try:
            mode = os.lstat(path).st_mode  # once: another process may delete the folder meanwhile
        except OSError:
            continue
        if not stat.S_ISDIR(mode) and not os.path.isdir(path):
            dangling = stat.S_ISLNK(mode) and not os.path.exists(path)
            kind = "a link whose target does not exist" if dangling else "a file"
            return f"{path} is {kind}, and a folder is needed there"
    return None


def reason(error: Exception) -> str:
    """Return the system's or library's error message in one line, without the path and class name in front."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.partition("\n")[0].rstrip(".") or type(error).__name__
