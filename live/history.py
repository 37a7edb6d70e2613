"""The newest part of an endless stream."""

from __future__ import annotations

import torch
from torch import Tensor


class History:
    """The newest columns of a stream by absolute position, in one tensor that is never enlarged.

    Before the stream there are zeros. Views are contiguous in time; they are valid until the next ``write``.

    Args:
        rows: values per position.
        length: number of positions, up to the newest, that can be read.
        device: device of the tensor.
    """

    def __init__(self, rows: int, length: int, device: str | torch.device = "cpu"):
        self.length, self.end = length, 0  # ``end`` is the position after the newest
        self._store = torch.zeros(rows, 2 * length, device=device)
        self._start = -length  # position of the store's first column

    def write(self, first: int, columns: Tensor) -> None:
        """Write ``columns`` (rows, n) from position ``first`` on, which may replace some. A gap is filled with zeros.

        Columns that are older than the history are ignored.
        """
        last = first + columns.shape[1]
        oldest = max(self.end, last) - self.length
        if first < oldest:
            columns, first = columns[:, oldest - first :], min(oldest, last)
        self.skip(first)
        self._make_room(last)
        self._store[:, first - self._start : last - self._start] = columns
        self.end = max(self.end, last)

    def skip(self, end: int) -> None:
        """Continue at position ``end``, unless the history is already there; the positions before it are zero."""
        if end <= self.end:
            return
        if end - self.end >= self.length:
            self._store.zero_()
            self._start = end - self.length
        else:
            self._make_room(end)
            self._store[:, self.end - self._start : end - self._start] = 0
        self.end = end

    def view(self, first: int, last: int) -> Tensor:
        """Return the positions ``first`` to ``last``: (rows, last - first). Raises IndexError if some are not there."""
        if first < self.end - self.length or not first <= last <= self.end:
            raise IndexError(f"positions {first} to {last} are not within the {self.length} before {self.end}")
        return self._store[:, first - self._start : last - self._start]

    def _make_room(self, last: int) -> None:
        """Move the newest columns to the store's begin if position ``last`` is beyond its end."""
        if last - self._start > self._store.shape[1]:
            oldest = last - self.length
            kept = max(0, self.end - oldest)
            self._store[:, :kept] = self._store[:, oldest - self._start : oldest - self._start + kept].clone()
            self._start = oldest
