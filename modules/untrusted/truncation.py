"""Whether a file that ``torch.load`` cannot read ends before its data does, as a kill or a full disk leave one."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from pathlib import Path

import torch

from modules.untrusted.pickle_scan import scan_pickle
from modules.untrusted.torch_file import PICKLES, ZIP

STREAM = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)  # how files of torch before 1.6 begin


def is_truncated(path: Path, error: Exception) -> bool:
    """Whether the file, for which ``torch.load`` raised ``error``, is the beginning of a checkpoint, or only zeros.

    A whole file is not truncated, whatever PyTorch says of it: refused, too new, or of another kind.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
        if not head.strip(b"\0"):  # empty, or room that was never filled
            return True
        if _begins(head, ZIP):
            return not zipfile.is_zipfile(path)  # which looks for the directory at its end
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
