"""Whether a file that ``torch.load`` cannot read ends before its data does, as a kill or a full disk leave one."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from pathlib import Path

import torch

ZIP = b"PK\3\4"
STREAM = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)  # how files of torch before 1.6 begin
PICKLES = 5  # of such a file, before its tensors' bytes


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
        file.seek(0)
        try:
            for _ in range(PICKLES):
                for _ in pickletools.genops(file):
                    pass
        except ValueError:
            return not file.read(1)
        return "unexpected EOF" in str(error)


def _begins(head: bytes, magic: bytes) -> bool:
    return head.startswith(magic) or magic.startswith(head)
