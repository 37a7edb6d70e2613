"""One training run at a time in a folder: two would delete each other's checkpoints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modules import distributed
from modules.atomic_file import obstacle
from modules.console import UserError, get_logger

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = get_logger("run_lock")

ATTEMPTS = 1000  # each fails only if another run ends, or deletes the folder, at that moment


@contextlib.contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Have the folder for this run's processes within the block; the system frees it when a run is killed.

    Meanwhile there is a file run.lock. Raises UserError, in each of the processes, when another run has the folder, or
    when it cannot be made because a file or a dangling link has its place. Nothing is held where there are no such
    locks.
    """
    with contextlib.ExitStack() as stack:
        distributed.from_the_first(lambda: _take(folder, stack))
        yield


def _take(folder: Path, stack: contextlib.ExitStack) -> None:
    path = folder / "run.lock"
    _demand_its_place(folder, path)
    if fcntl is None:
        return
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    for _ in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab"))
            _lock(file, folder)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except (FileNotFoundError, FileExistsError):  # the latter comes from mkdir when another run deletes the folder
            _demand_its_place(folder, path)
    else:
        raise UserError(f"{path} cannot be made: other programs delete it again and again")
    stack.callback(_tidy, path, new_folders)


def _demand_its_place(folder: Path, lock: Path) -> None:
    """Raise UserError where the folder or its lock cannot be made."""
    if why := obstacle(folder):
        raise UserError(f"the run's folder {folder} cannot be made: {why}; move it away or mend the link")
    if lock.is_dir() or (os.path.islink(lock) and not os.path.exists(lock)):
        raise UserError(f"{lock} is a folder or a link without a file behind it; delete it and run the same command")


def _lock(file: BinaryIO, folder: Path) -> None:
    try:
        # Of this process alone, not of the workers that it starts: these may outlive it by seconds.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UserError(f"another run is training in {folder}; let it end, or train in another folder") from None
    except OSError as error:
        log.debug("%s cannot be locked (%s)", folder, error)


def _tidy(lock: Path, new_folders: list[Path]) -> None:
    """Delete the lock, and the folders made for it alone: a run refused for its configuration leaves nothing."""
    with contextlib.suppress(OSError):
        lock.unlink()
        for folder in new_folders:
            folder.rmdir()
