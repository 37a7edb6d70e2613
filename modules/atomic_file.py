"""Files that are there whole or not at all."""

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

FULL = 1 << 20  # bytes that are left free by a write that found no room


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; when the block ends well it is flushed to disk and takes that name.

    When the block raises, the temporary file is removed and a former file of that name is untouched. The temporary
    name keeps the suffix (writers choose formats by it) and starts with a dot, so that no stage takes it for input.
    """
    with atomic_paths(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_paths(*paths: str | os.PathLike, mark: str = MARK) -> Iterator[list[Path]]:
    """``atomic_path`` for files that belong together: none takes its name before all of them are on the disk.

    They take their names in the order given, which leaves a kill no more than the moment between two renames.
    What a killed run left unfinished in these folders is deleted (modules/temporary_file.py). With another ``mark`` in
    the temporary names the caller deletes the leftovers. Raises IsADirectoryError before anything is made where a
    folder has one of the names.
    """
    whole = [Path(path) for path in paths]
    for path in whole:
        if os.path.isdir(path):  # also False for a name that is too long
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.ExitStack() as stack:
        for path in whole:
            path.parent.mkdir(parents=True, exist_ok=True)
            _tidy(path.parent.absolute())
        temporaries = [stack.enter_context(locked_temporary(path, mark)) for path in whole]
        yield temporaries
        for temporary in temporaries:
            with open(temporary, "r+b") as file:  # Windows flushes only what is open for writing
                os.fsync(file.fileno())
        for temporary, path in zip(temporaries, whole, strict=True):
            os.replace(temporary, path)


@functools.cache
def _tidy(folder: Path) -> None:
    """Before this process's first write into a folder, delete what killed runs left there."""
    delete_unfinished(folder)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextlib.contextmanager
def output_path(path: str | os.PathLike, library_error: type[Exception] = OSError) -> Iterator[Path]:
    """``atomic_path`` whose failures are told: UserError naming ``path``, the reason, and what stands in the way.

    ``library_error`` is what the library that writes raises. Few say that the disk is full, so that is looked for.
    """
    with output_paths(path, library_error=library_error) as (temporary,):
        yield temporary


@contextlib.contextmanager
def output_paths(*paths: str | os.PathLike, library_error: type[Exception] = OSError) -> Iterator[list[Path]]:
    """``output_path`` for files that belong together, as in ``atomic_paths``; the first that is blocked is named."""
    whole = [Path(path) for path in paths]
    try:
        with atomic_paths(*whole) as temporaries:
            try:
                yield temporaries
            except (OSError, library_error) as error:
                free = min(shutil.disk_usage(path.parent).free for path in whole)
                if free < FULL:  # now, while the unfinished files still take their room
                    raise OSError(errno.ENOSPC, "the disk is full") from error
                raise
    except (OSError, library_error) as error:
        path, why = next(_blocked(whole), (whole[0], reason(error)))
        raise UserError(f"{path} cannot be written: {why}") from None


def _blocked(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Those that something else has the place of, and what that is."""
    for path in paths:
        if os.path.isdir(path):
            yield path, "it is a folder"
        if why := obstacle(path.parent):
            yield path, why


def obstacle(folder: Path) -> str | None:
    """Name the file or dangling link in place of ``folder`` or of a folder above it; None if there is none.

    A half sentence for the user.
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
    """What the system or a library says, in one line, without the path and the class that they put before it."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.partition("\n")[0].rstrip(".") or type(error).__name__
