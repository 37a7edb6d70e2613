"""Write checkpoints so that no failure harms former ones: check the free space, write atomically, flush to disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from modules.atomic_file import DISK_FULL, atomic_paths
from modules.console import UserError
from modules.temporary_file import temporary_name

MARK = "saving"  # in the temporary names of a run's checkpoints, which only delete_unfinished deletes
SPARE = 16 << 20  # bytes that must be free beyond the tensors: for the files' overhead and the run's logs


def save_together(paths: Sequence[Path], contents: Sequence[dict[str, Any]], mark: str = MARK) -> None:
    """Write checkpoints of one folder that belong together: first all of them under temporary names, then renamed in
    this order.

    The temporary names contain ``mark`` (modules/atomic_file.py). Raises UserError when there is no room or the system
    refuses; former files of these names then stay as they were.
    """
    try:
        with atomic_paths(*paths, mark=mark) as temporaries:
            _require_free_space(paths[0].parent, contents)
            for temporary, content in zip(temporaries, contents, strict=True):
                _write(temporary, content)
        _flush_folder(paths[0].parent)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{paths[-1]} could not be written ({error}); the checkpoints before it are intact") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        with open(path, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch's own message only gives positions in the file
        if shutil.disk_usage(path.parent).free < DISK_FULL:  # checked while the unfinished file still occupies the disk
            raise OSError("the disk is full") from error
        raise


def delete_together(paths: Sequence[Path]) -> None:
    """Delete checkpoints of one folder that belong together.

    All are renamed to temporary names before any is deleted. If the run is killed in between, at least one temporary
    file remains, which lets the next save delete the others of that step (``Pair.leftovers``).
    """
    unnamed = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            unnamed.append(path.replace(temporary_name(path, MARK)))
    for path in unnamed:
        path.unlink(missing_ok=True)


def unfinished(folder: Path) -> list[Path]:
    """Return the temporary files of checkpoints that a killed run was writing or deleting in this folder."""
    return list(folder.glob(f".*.{MARK}.pt*"))


def delete_unfinished(folder: Path) -> None:
    """Delete the ``unfinished`` files."""
    for path in unfinished(folder):
        path.unlink(missing_ok=True)


def _require_free_space(folder: Path, contents: Sequence[dict[str, Any]]) -> None:
    """Raise UserError when the disk has too little free space for these checkpoints."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(contents)}
    needed, free = sum(storages.values()) + SPARE, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has room for {free / 1e6:,.0f} MB and a checkpoint needs {needed / 1e6:,.0f}; make room there, "
            "or let train.keep_ckpts keep fewer (the checkpoints before it are intact)"
        )


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict | list | tuple):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _tensors(item)


def _flush_folder(folder: Path) -> None:
    """Flush the folder's entries to disk, if the system supports it, before older files are deleted."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
