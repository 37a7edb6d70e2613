"""A long sound cut into blocks, so that what is computed of it needs the memory of one block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Frames ``first`` to ``last`` are computed, and ``begin`` to ``end`` of them are right and kept."""

    first: int
    begin: int
    end: int
    last: int

    @property
    def kept(self) -> slice:
        """What is kept, counted from ``first``."""
        return slice(self.begin - self.first, self.end - self.first)


def blocks(length: int, size: int, context: int = 0) -> Iterator[Block]:
    """Cut ``length`` frames into blocks of ``size``, each computed with ``context`` more frames on both sides.

    A computation in which no frame depends on one more than ``context`` away gives the same in blocks as at once. What
    fits into one block with its context stays whole, for that takes no more memory.
    """
    if length <= size + 2 * context:
        yield Block(0, 0, length, length)
        return
    for begin in range(0, length, size):
        end = min(begin + size, length)
        yield Block(max(begin - context, 0), begin, end, min(end + context, length))
