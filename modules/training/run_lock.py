"""Lock a run's folder: two runs in one folder would delete each other's checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from modules.atomic_file import obstacle
from modules.console import UserError, get_logger
from modules.training import distributed

log = get_logger("run_lock")

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)  # raised by file systems without locks


@contextlib.contextmanager
def exclusive_run(folder: Path) -> Iterator[None]:
    """Lock the folder for this run's processes within the block, by its file run.lock.

    The system releases the lock when the run is killed. Raises UserError on all ranks when another run holds the lock,
    or when a file or a dangling link prevents the folder. Does nothing on a file system without locks.
    """
    with contextlib.ExitStack() as stack:
        distributed.broadcast_from_rank_zero(lambda: _lock(folder, stack))
        yield


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    path = folder / "run.lock"
    if why := obstacle(folder):
        raise UserError(f"the run's folder {folder} cannot be made: {why}; move it away or repair the link")
    if path.is_dir() or path.is_symlink():
        raise UserError(f"{path} is a folder or a link; delete it and run the same command")
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):  # the last two: another run is ending and deletes the folder
        raise UserError(f"another run is training in {folder}; let it end, or train in another folder") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.debug("%s cannot be locked (%s)", folder, error)
    stack.callback(_unlock, lock, new_folders)


def _unlock(lock: FileLock, new_folders: list[Path]) -> None:
    """Release and delete the lock, and those new folders that are still empty."""
    with contextlib.suppress(OSError):  # Windows deletes the file on release
        os.unlink(lock.lock_file)
    lock.release()
    with contextlib.suppress(OSError):
        for folder in new_folders:
            folder.rmdir()
