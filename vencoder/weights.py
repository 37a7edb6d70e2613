"""From the parameters of another program's file to those of a network here: their names, then their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modules.console import UserError

RenameTable = Iterable[tuple[str, str | None]]
NAMED_IN_ERRORS = 3


def rename(weights: Mapping[str, Tensor], table: RenameTable, where: str | Path) -> dict[str, Tensor]:
    """The weights under their new names, by a table of regular expressions over whole names.

    A rule whose new name is None says that the tensor is deliberately unused. Raises UserError naming the first tensors
    of the file ``where`` that no rule knows.
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
        raise UserError(f"{where} holds tensors that this encoder does not know: {_first(unknown, ', ')}")
    return renamed


def assign(module: nn.Module, weights: Mapping[str, Tensor], where: str | Path, what: str) -> None:
    """Give a module made on the meta device the file's values, as float32 and apart from the mapped file.

    Raises UserError when the names or shapes are not the module's: the file ``where`` is not a whole ``what``.
    """
    own = module.state_dict()
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not expected" for name in weights if name not in own]
    wrong += [
        f"{name} is {list(weights[name].shape)} and should be {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(f"{where} does not hold a whole {what}: {_first(wrong, '; ')}")
    values = {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
    module.load_state_dict(values, assign=True)


def _first(items: list[str], separator: str) -> str:
    more = len(items) - NAMED_IN_ERRORS
    return separator.join(items[:NAMED_IN_ERRORS]) + (f" (and {more} more)" if more > 0 else "")
