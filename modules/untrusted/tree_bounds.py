"""Bounds for nested lists and dictionaries from untrusted files: their depth, and their size when fully expanded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modules.untrusted.pickle_scan import MOST_NESTED


def parts_of(value: Any) -> Iterable[Any]:
    """Return the items of a container, or a dictionary's keys and values; empty for other values."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def check_tree(value: Any, most: int, parts: Callable[[Any], Iterable[Any]] = parts_of) -> None:
    """Make sure that ``value`` can be copied, printed and compared. Takes time and memory linear in its size.

    Raises ValueError if a part contains itself or nests more than MOST_NESTED deep, or if the whole expands to more
    than ``most`` parts. A part counts once per reference: ten lists, each holding the previous one ten times, take a
    few hundred bytes in a file and expand to ten thousand million parts.
    """
    known: dict[int, tuple[int, int]] = {}  # id -> depth and expanded size of a part
    parents: set[int] = set()
    waiting: list[tuple[Any, list[Any] | None]] = [(value, None)]
    while waiting:
        part, inner = waiting.pop()
        if inner is None:
            if id(part) in known:
                continue
            if id(part) in parents:
                raise ValueError("it holds a list or dictionary that contains itself")
            inner = list(parts(part))
            if inner:
                parents.add(id(part))
                waiting.append((part, inner))
                waiting += [(one, None) for one in inner]
                continue
        parents.discard(id(part))
        depth = 1 + max((known[id(one)][0] for one in inner), default=0)
        size = 1 + sum(known[id(one)][1] for one in inner)
        if depth > MOST_NESTED:
            raise ValueError(f"its lists and dictionaries nest more than {MOST_NESTED} deep")
        if size > most:
            raise ValueError("its lists and dictionaries refer to each other so often that they have no end")
        known[id(part)] = depth, size
