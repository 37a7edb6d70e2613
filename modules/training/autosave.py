"""When a training run has worked so long that a crash would cost too much."""

from __future__ import annotations

import argparse
import time

MINUTES = 30.0  # by default; a checkpoint of the published sizes is about a gigabyte


def minutes(text: str) -> float:
    """The value of a flag, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of minutes; give 0 or more")
    return value


class Autosave:
    """The time since the last checkpoint, against the ``minutes`` that may be lost at most (0: any number)."""

    def __init__(self, minutes: float = MINUTES):
        self.seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        """A checkpoint was written, or has failed: the next is due in ``minutes``."""
        self.since = time.monotonic()

    @property
    def due(self) -> bool:
        return 0 < self.seconds <= time.monotonic() - self.since
