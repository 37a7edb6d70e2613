"""Progress as log lines where there is no terminal for a bar: under nohup, in a log file, in a cluster job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from modules.console import get_logger

log = get_logger("progress")

FIRST, EVERY = 10, 60  # seconds until the first line, and from one to the next
MAX_SECONDS = 100 * 365 * 86400  # dates have an upper limit


def expected_end(seconds: float) -> str:
    """Return the date and time, to the minute, in ``seconds`` from now."""
    return f"{datetime.now() + timedelta(seconds=min(seconds, MAX_SECONDS)):%Y-%m-%d %H:%M}"


class ProgressLines:
    """Has the methods of a tqdm bar and logs a line once a minute. The first line comes after FIRST seconds, or after a
    minute if the progress is ``within`` another.

    ``n`` of ``total`` units are done. The first update after a line is ``due`` logs it.
    """

    def __init__(self, items: Iterable | None, total: int | None, n: int, description: str, unit: str, *, within: bool):
        self.items, self.description = items, description
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self.units = unit if unit == "s" else f"{unit}s"  # "s" means seconds
        self.n = self.first = n
        self.notes = ""
        self.began = monotonic()
        self.next = self.began + (EVERY if within else FIRST)

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            yield item
            self.update()

    @property
    def due(self) -> bool:
        return monotonic() >= self.next

    def set_postfix(self, notes: Mapping[str, Any], refresh: bool = True) -> None:
        """Set the values that the next lines add."""
        self.notes = "".join(f", {name} {value}" for name, value in notes.items())

    def update(self, more: float = 1) -> None:
        self.n += more
        if self.due:
            self.next = monotonic() + EVERY
            log.info("%s", str(self))  # formatted now: a handler that keeps the record would see later numbers

    def __str__(self) -> str:
        seconds, done = monotonic() - self.began, self.n - self.first
        of_all = "" if self.total is None else f" of {self.total}"
        end = ""
        if self.total is not None and done > 0:
            end = f", expected end {expected_end(seconds / done * max(self.total - self.n, 0))}"
        elapsed = timedelta(seconds=round(seconds))
        return f"{self.description}: {self.n}{of_all} {self.units}{self.notes}; {elapsed} so far{end}"
