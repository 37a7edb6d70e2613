"""Decide when an autosave is due, so that a crash does not cost too much training."""

from __future__ import annotations

import argparse
import time

MINUTES = 30.0  # the default interval; a checkpoint of the published sizes takes about a gigabyte


def minutes(text: str) -> float:
    """Parse a flag's number of minutes, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of minutes; give 0 or more")
    return value


class AutosaveTimer:
    """Measures the time since the last checkpoint; an autosave is due after ``minutes``, or never if that is 0."""

    def __init__(self, minutes: float = MINUTES):
        self.seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        """Restart the timer, after a checkpoint was written or could not be written."""
        self.since = time.monotonic()

    @property
    def due(self) -> bool:
        return 0 < self.seconds <= time.monotonic() - self.since
