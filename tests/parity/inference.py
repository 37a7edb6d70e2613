"""Adapters for the fixtures of conversion: cutting into pieces and filling up (D_)."""

from __future__ import annotations

import numpy as np

from inference.segments import pad_centred, split

Arrays = dict[str, np.ndarray]


def split_pad(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for index, (length, size, lead_in) in enumerate(ins["split_args"].tolist()):
        pieces = split(length, size, lead_in)
        outputs[f"split_{index}"] = np.array([[piece.start, piece.end - piece.start] for piece in pieces], np.int64)
    for index, (length, target) in enumerate(ins["pad_args"].tolist()):
        outputs[f"pad_{index}"] = pad_centred(np.arange(1, length + 1, dtype=np.float32), target)
    return outputs


ADAPTERS = {"D_split_pad": split_pad}
