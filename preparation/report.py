"""The report of a run of stage 3, logged at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modules.console import get_logger, option
from modules.data.features import SHORTEST_CLIP

log = get_logger("features")

NAMES_SHOWN = 20
FEW_SHOWN = 5  # in one message


@dataclass
class Report:
    """Results of one run. ``audio_seconds`` is the length of the sound; the other seconds are wall-clock time."""

    made: int = 0
    ready: int = 0
    too_short: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    reasons: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)  # sidecar files of other origin, by kind
    audio_seconds: float = 0.0
    work_seconds: float = 0.0
    load_seconds: dict[int, float] = field(default_factory=dict)  # worker rank -> seconds

    @classmethod
    def merged(cls, reports: Sequence[Report]) -> Report:
        """Merge the reports of several processes that ran at the same time."""
        whole = cls()
        for report in reports:
            for name in ("made", "ready", "too_short", "reasons", "kept", "audio_seconds"):
                setattr(whole, name, getattr(whole, name) + getattr(report, name))
            whole.failed |= report.failed
            whole.work_seconds = max(whole.work_seconds, report.work_seconds)
            whole.load_seconds |= enumerate(report.load_seconds.values(), len(whole.load_seconds))
        return whole

    def show(self) -> None:
        """Log the report: first what needs attention, last the counts."""
        warn_of_each(f"passed over, shorter than {SHORTEST_CLIP} s", self.too_short)
        warn_of_each("not made", self.failed.values())
        if self.kept:
            log.info(
                "kept because they fit their clips: %d files that this program did not make or that were edited since "
                "(%s). Units of another speech encoder with as many features, and mels of another vocoder, are not "
                "recognised; %s makes all files anew",
                self.kept.total(), ", ".join(f"{name} {count}" for name, count in self.kept.most_common()),
                option("remake", True),
            )  # fmt: skip
        if self.reasons:
            log.info("made %s", ", ".join(f"{count} files {reason}" for reason, count in self.reasons.most_common()))
        if self.made:
            log.info(
                "%.1f minutes of sound in %.1f s, %.2f clips/s; models loaded in %.1f s (workers: %d)",
                self.audio_seconds / 60, self.work_seconds, self.made / self.work_seconds,
                max(self.load_seconds.values()), len(self.load_seconds),
            )
        log.info("%d clips made, %d up to date, %d failed", self.made, self.ready, len(self.failed))


def count_and_first(items: Sequence[Path], noun: str) -> str:
    """Return the count and the first items: ``7 clips (a.wav, b.wav, c.wav, ...)``."""
    names = ", ".join(map(str, items[:FEW_SHOWN])) + (", ..." if len(items) > FEW_SHOWN else "")
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'} ({names})"


def warn_of_each(fate: str, items: Iterable[str | Path]) -> None:
    """Log a warning for each of the first NAMES_SHOWN items, and the number of the others."""
    items = list(items)
    for item in items[:NAMES_SHOWN]:
        log.warning("%s: %s", fate, item)
    if len(items) > NAMES_SHOWN:
        log.warning("%s: %d more", fate, len(items) - NAMES_SHOWN)
