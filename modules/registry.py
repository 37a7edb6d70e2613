"""String key -> lazily imported class, with the facts callers need."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from modules.console import UserError


@dataclass(frozen=True)
class Row:
    """One entry of a table. ``target`` is ``"package.module:ClassName"``, imported only when asked for."""

    target: str

    def load(self) -> type:
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)


RowType = TypeVar("RowType", bound=Row)


class Registry(Generic[RowType]):
    """A visible table of what a string key can name; ``kind`` ("speech encoder") is how errors speak of it."""

    def __init__(self, kind: str, rows: Mapping[str, RowType]):
        self.kind = kind
        self.rows = dict(rows)

    def __iter__(self):
        return iter(self.rows)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> RowType:
        """The row of ``key``; UserError with the known keys, the likeliest first, when there is none."""
        if key not in self.rows:
            raise UserError(f"unknown {self.kind} '{key}'; known: {', '.join(nearest_first(key, self.rows))}")
        return self.rows[key]


def nearest_first(word: str, known: Iterable[str]) -> list[str]:
    """The known words, those most like ``word`` first."""
    return sorted(known, key=lambda other: -difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio())
