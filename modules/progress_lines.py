"""Progress as log lines where no terminal draws a bar: under nohup, in a log file, in a cluster's job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from modules.console import get_logger

log = get_logger("progress")

FIRST, EVERY = 10, 60  # seconds until the first line, and from one to the next
FARTHEST = 100 * 365 * 86400  # seconds; calendars end


def expected_end(seconds: float) -> str:
    """The date and minute that is so many seconds away."""
    return f"{datetime.now() + timedelta(seconds=min(seconds, FARTHEST)):%Y-%m-%d %H:%M}"


class ProgressLines:
    """Has a tqdm bar's methods and logs a line each minute; one ``within`` another logs its first after a minute too.

    ``n`` of ``total`` units are done. The first update after a line is ``due`` logs it.
    """

    def __init__(self, items: Iterable | None, total: int | None, n: int, description: str, unit: str, *, within: bool):
        self.items, self.description = items, description
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self.units = unit if unit == "s" else f"{unit}s"  # s are seconds
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
        """What else the next lines say."""
        self.notes = "".join(f", {name} {value}" for name, value in notes.items())

    def update(self, more: float = 1) -> None:
        self.n += more
        if self.due:
            self.next = monotonic() + EVERY
            log.info("%s", str(self))  # now: what keeps the record would see later numbers

    def __str__(self) -> str:
        seconds, done = monotonic() - self.began, self.n - self.first
        of_all = "" if self.total is None else f" of {self.total}"
        end = ""
        if self.total is not None and done > 0:
            end = f", expected end {expected_end(seconds / done * max(self.total - self.n, 0))}"
        elapsed = timedelta(seconds=round(seconds))
        return f"{self.description}: {self.n}{of_all} {self.units}{self.notes}; {elapsed} so far{end}"
