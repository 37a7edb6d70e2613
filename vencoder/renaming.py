"""Rename parameters by a table of regular expressions over whole names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from modules.console import UserError
from modules.weights.weight_file import in_short

RenameTable = Iterable[tuple[str, str | None]]


def rename(weights: Mapping[str, Tensor], table: RenameTable, where: str | Path) -> dict[str, Tensor]:
    """Return the weights under their new names.

    A rule whose new name is None drops the tensor. Raises UserError naming the first tensors of the file ``where`` that
    no rule matches.
    """
    renamed, unknown = {}, []
    for name, tensor in weights.items():
        for pattern, replacement in table:
            if match := re.fullmatch(pattern, name):
                if replacement is not None:
                    renamed[match.expand(replacement)] = tensor
                break
        else:
            unknown.append(f"{name} {list(tensor.shape)}")
    if unknown:
        raise UserError(f"{where} holds tensors that this encoder does not have: {in_short(unknown, ', ')}")
    return renamed
