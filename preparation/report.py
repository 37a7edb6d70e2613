"""What a run of the preparation did, told at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modules.console import get_logger, option
from modules.data.features import SHORTEST_CLIP

log = get_logger("features")

NAMES_SHOWN = 20
FEW_SHOWN = 5  # in one sentence


@dataclass
class Report:
    """What one run did. Seconds are of sound in ``audio_seconds``, of the clock in the others."""

    made: int = 0
    ready: int = 0
    too_short: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    reasons: Counter = field(default_factory=Counter)
    kept: Counter = field(default_factory=Counter)  # companions of other origin, by name
    audio_seconds: float = 0.0
    work_seconds: float = 0.0
    load_seconds: dict[int, float] = field(default_factory=dict)  # of each worker, by rank

    @classmethod
    def of_all(cls, reports: Sequence[Report]) -> Report:
        """What several processes did at the same time, each on clips of its own."""
        whole = cls()
        for report in reports:
            for name in ("made", "ready", "too_short", "reasons", "kept", "audio_seconds"):
                setattr(whole, name, getattr(whole, name) + getattr(report, name))
            whole.failed |= report.failed
            whole.work_seconds = max(whole.work_seconds, report.work_seconds)
            whole.load_seconds |= enumerate(report.load_seconds.values(), len(whole.load_seconds))
        return whole

    def show(self) -> None:
        """Log it: the counts last, what needs attention before."""
        list_some(f"passed over, shorter than {SHORTEST_CLIP} s", self.too_short)
        list_some("not made", self.failed.values())
        if self.kept:
            log.info(
                "kept because they fit their clips: %d files that this program did not make or that were edited since "
                "(%s). It cannot see whether units are of another speech encoder with as many features, or mels of "
                "another vocoder; %s makes all files anew",
                self.kept.total(), ", ".join(f"{name} {count}" for name, count in self.kept.most_common()),
                option("remake", True),
            )  # fmt: skip
        if self.reasons:
            log.info("files made: %s", ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common()))
        if self.made:
            log.info(
                "%.1f minutes of sound in %.1f s, %.2f clips/s; models loaded in %.1f s (workers: %d)",
                self.audio_seconds / 60, self.work_seconds, self.made / self.work_seconds,
                max(self.load_seconds.values()), len(self.load_seconds),
            )
        log.info("%d clips made, %d were ready, %d failed", self.made, self.ready, len(self.failed))


def count_and_first(items: Sequence[Path], noun: str) -> str:
    """How many, and the first few of them: ``7 clips (a.wav, b.wav, c.wav, ...)``."""
    names = ", ".join(map(str, items[:FEW_SHOWN])) + (", ..." if len(items) > FEW_SHOWN else "")
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'} ({names})"


def list_some(fate: str, items: Iterable[str | Path]) -> None:
    """Warn of each item, up to a score of them, and of how many more there are."""
    items = list(items)
    for item in items[:NAMES_SHOWN]:
        log.warning("%s: %s", fate, item)
    if len(items) > NAMES_SHOWN:
        log.warning("%s: %d more", fate, len(items) - NAMES_SHOWN)
