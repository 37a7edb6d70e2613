"""Tables from string keys to lazily imported classes, with the facts that callers need."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from modules.console import UserError


@dataclass(frozen=True)
class Row:
    """One entry of a table. ``target`` is ``"package.module:ClassName"``, imported on first use."""

    target: str

    def load(self) -> type:
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)


RowType = TypeVar("RowType", bound=Row)


class Registry(Generic[RowType]):
    """A table of rows by key. ``kind`` ("speech encoder") is its name in error messages."""

    def __init__(self, kind: str, rows: Mapping[str, RowType]):
        self.kind = kind
        self.rows = dict(rows)

    def __iter__(self):
        return iter(self.rows)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> RowType:
        """Return the row of ``key``. Raises UserError listing the known keys, the most similar first."""
        if key not in self.rows:
            raise UserError(f"unknown {self.kind} '{key}'; known: {', '.join(nearest_first(key, self.rows))}")
        return self.rows[key]


def nearest_first(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words, the most similar to ``word`` first."""
    return sorted(known, key=lambda other: -difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio())
