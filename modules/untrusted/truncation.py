"""Detects a truncated file of ``torch.save``, as a killed process or a full disk leaves it."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from pathlib import Path

import torch

from modules.untrusted.pickle_scan import scan_pickle
from modules.untrusted.torch_file import PICKLES, ZIP

STREAM = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)  # the beginning of files of torch before 1.6


def is_truncated(path: Path, error: Exception) -> bool:
    """Return whether a file for which ``torch.load`` raised ``error`` is only the start of a checkpoint, or all zeros.

    Returns False for a complete file that PyTorch rejects: refused, too new, or of another kind.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
        if not head.strip(b"\0"):  # empty, or allocated but never written
            return True
        if _begins(head, ZIP):
            return not zipfile.is_zipfile(path)  # looks for the directory at the end
        if not _begins(head, STREAM):
            return False
        at = 0
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for _ in range(PICKLES):
                    at = scan_pickle(data, at)
        except EOFError:
            return True
        except ValueError:
            return False
        return "unexpected EOF" in str(error)


def _begins(head: bytes, magic: bytes) -> bool:
    return head.startswith(magic) or magic.startswith(head)
