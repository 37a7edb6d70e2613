"""One training run at a time in a folder: two would delete each other's checkpoints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modules import distributed
from modules.console import UserError, get_logger

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = get_logger("run_lock")


@contextlib.contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Have the folder for this run's processes within the block; the system frees it when a run is killed.

    Meanwhile there is a file run.lock. Raises UserError, in each of the processes, when another run has the folder.
    Nothing is held where there are no such locks.
    """
    with contextlib.ExitStack() as stack:
        distributed.from_the_first(lambda: _take(folder, stack))
        yield


def _take(folder: Path, stack: contextlib.ExitStack) -> None:
    _refuse_what_is_no_folder(folder)
    if fcntl is None:
        return
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / "run.lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "ab"))
            _lock(file, folder)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass  # as where the file is another by now: the run that has just ended has deleted its own
        except FileExistsError:  # mkdir also raises it for a folder that is deleted meanwhile
            _refuse_what_is_no_folder(folder)
    stack.callback(_tidy, path, new_folders)


def _refuse_what_is_no_folder(folder: Path) -> None:
    """Raise UserError when the folder or one above it is a file or a link that leads nowhere."""
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to a folder that does not exist; make that folder or remove the link")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file, and a folder has to be there; move it away or choose another name")


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
