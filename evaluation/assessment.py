"""The assessment of a conversion: its figures beside those of the source and of the target's recordings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.baseline import move_voice
from evaluation.cache import content_key
from evaluation.case import LONGEST, RATE, Case, Excerpt, Sound
from evaluation.comparison import Interval, interval
from evaluation.judges import Panel
from evaluation.pitch import key_difference
from evaluation.signal_figures import SignalFigures
from evaluation.words import normalize
from modules.audio.files import resample, write_audio
from modules.console import get_logger, progress

log = get_logger("evaluate")

CONVERTED, SELF, SOURCE, SHIFTED, TARGET = "converted", "self", "source", "shifted", "target"
TITLES = {
    CONVERTED: "converted",
    SELF: "target through the model",
    SOURCE: "source",
    SHIFTED: "source, pitch shifted",
    TARGET: "target's recordings",
}
MOST_TARGETS = 24  # recordings of the target, spread evenly over those that are there
LEAST_SECONDS = 60.0  # of sound, for error rates that can be trusted


@dataclass
class Column:
    """The figures of one kind of sound: of each clip, and of all clips together."""

    clips: list[dict[str, float]] = field(default_factory=list)
    whole: dict[str, float] = field(default_factory=dict)
    embeddings: list[list[float]] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        """Return the figures ``key`` of the clips that have it."""
        return [clip[key] for clip in self.clips if key in clip]

    def mean(self, key: str) -> float | None:
        """Return the mean of a figure over the clips, or the figure of all clips together; None if there is none."""
        if key in self.whole:
            return self.whole[key]
        values = self.values(key)
        return float(np.mean(values)) if values else None

    def interval(self, key: str) -> Interval | None:
        """Return the mean and its bootstrap interval over the clips; None if no clip has the figure."""
        return None if key in self.whole else interval(self.values(key))


@dataclass
class Assessment:
    """Columns by kind of sound; ``clips`` names the rows of ``converted``, ``source`` and ``shifted``.

    ``notes`` are sentences about what is missing or uncertain; ``examples`` are sounds (L,) and their contours for the
    picture, by title.
    """

    clips: list[str] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: dict[str, tuple] = field(default_factory=dict)
    seconds: float = 0.0


class Assessor:
    """Assesses conversions to one target voice.

    Args:
        panel: the judges.
        signals: the other figures.
        targets: recordings of the target's voice; without them there is no similarity.
    """

    def __init__(self, panel: Panel, signals: SignalFigures, targets: Sequence[Path] = ()):
        self.panel, self.signals = panel, signals
        spread = np.linspace(0, len(targets) - 1, min(len(targets), MOST_TARGETS)).round().astype(int)
        self.target_files = [targets[i] for i in spread]
        self.target_embedding: np.ndarray | None = None
        self._target: Column | None = None

    def assess(self, cases: Sequence[Case], own: Sequence[Case] = (), *, shifted: bool = True) -> Assessment:
        """Return the figures of the cases; ``own`` are recordings of the target converted to the target.

        Without ``shifted``, the columns of the source are left out. Raises UserError if a sound cannot be read.
        """
        result = Assessment()
        if self.target_files:
            result.columns[TARGET] = self.target()
        converted = result.columns[CONVERTED] = Column()
        others = {key: Column() for key in (SOURCE, SHIFTED)} if shifted else {}
        for excerpt in _read(cases, "judging"):
            result.clips.append(excerpt.name)
            result.seconds += len(excerpt.converted.audio) / RATE
            converted.clips.append(self._judge(excerpt.converted, excerpt, converted))
            if others and excerpt.source:
                self._judge_source(excerpt, others)
            if not result.examples:
                result.examples = self._examples(excerpt)
            self.signals.forget()
        result.columns |= {key: column for key, column in others.items() if column.clips}
        if own:
            column = result.columns[SELF] = Column()
            for excerpt in _read(own, "judging the target converted to itself"):
                column.clips.append(self._judge(excerpt.converted, excerpt, column))
                self.signals.forget()
        self._finish(result)
        return result

    def target(self) -> Column:
        """Return the column of the target's recordings, judged once."""
        if self._target is None:
            self._target = column = Column()
            for path in progress(self.target_files, description="the target's recordings", unit="clip"):
                sound = Sound.read(path)
                sound = sound.cut(0, round(LONGEST * RATE))
                column.clips.append(self._judge(sound, None, column))
                self.signals.forget()
            self._add_ceiling(column)
        return self._target

    def _add_ceiling(self, column: Column) -> None:
        """Compare the target's recordings with each other, and keep their mean embedding."""
        if not column.embeddings:
            return
        from evaluation.speaker import leave_one_out, mean_embedding, split_half

        for clip, value in zip(column.clips, leave_one_out(column.embeddings), strict=False):
            clip["similarity"] = value
        if (halves := split_half(column.embeddings)) is not None:
            column.whole["similarity_of_all"] = halves
        self.target_embedding = mean_embedding(column.embeddings)

    def _judge_source(self, excerpt: Excerpt, columns: dict[str, Column]) -> None:
        source = excerpt.source
        columns[SOURCE].clips.append(self._judge(source, excerpt, columns[SOURCE], shift=0.0))
        difference = key_difference(self.signals.contour(excerpt.converted), self.signals.contour(source))
        semitones = excerpt.shift if difference is None else round(difference, 1)
        moved = self._move(source, semitones)
        columns[SHIFTED].clips.append(self._judge(moved, excerpt, columns[SHIFTED], shift=semitones))

    def _move(self, source: Sound, semitones: float) -> Sound:
        """Return the sound at another pitch, from the cache's folder if it is there."""
        rate = min(source.rate, RATE)
        audio, folder = resample(source.audio, RATE, rate), self.panel.cache.folder
        if folder is None:
            return Sound(resample(move_voice(audio, rate, semitones), rate, RATE), rate)
        path = folder / f"{content_key(audio, 'WORLD', rate, semitones)}.flac"
        if not path.exists():
            write_audio(path, move_voice(audio, rate, semitones), rate)
        return Sound.read(path)

    def _judge(
        self, sound: Sound, excerpt: Excerpt | None, column: Column, shift: float | None = None
    ) -> dict[str, float]:
        """Return all figures of a sound; its embedding is added to the column."""
        figures = dict(self.signals.of(sound, excerpt, shift))
        embedding = self.panel.ask("speaker", sound.audio, RATE)
        if embedding is not None:
            column.embeddings.append(embedding)
            if self.target_embedding is not None:
                from evaluation.speaker import similarity

                figures["similarity"] = similarity(embedding, self.target_embedding)
        if (opinion := self.panel.ask("opinion", sound.audio, RATE)) is not None:
            figures["dnsmos"] = opinion
        if excerpt:
            figures |= self._error_rates(sound, excerpt)
        return figures

    def _error_rates(self, sound: Sound, excerpt: Excerpt) -> dict[str, float]:
        """Compare words and phones with the text, or with those that the same recogniser finds in the source."""
        if not excerpt.text and (excerpt.source is None or sound is excerpt.source):
            return {}
        figures = {}
        if (found := self.panel.ask("words", sound.audio, RATE)) is not None:
            from evaluation.error_rate import character_error_rate

            wanted = normalize(excerpt.text) if excerpt.text else None
            figures["cer"] = character_error_rate(found, wanted or self._of_source("words", excerpt))
        if (found := self.panel.ask("phones", sound.audio, RATE)) is not None:
            from evaluation.error_rate import phone_error_rate
            from evaluation.phones import phones_of_text

            wanted = phones_of_text(excerpt.text) if excerpt.text else None
            figures["per"] = phone_error_rate(found, wanted or self._of_source("phones", excerpt))
        return {name: value for name, value in figures.items() if value is not None}

    def _of_source(self, key: str, excerpt: Excerpt) -> str | None:
        """Return the opinion of the judge ``key`` about the source; None without a source."""
        return self.panel.ask(key, excerpt.source.audio, RATE) if excerpt.source else None

    def _examples(self, excerpt: Excerpt) -> dict[str, tuple]:
        """Return the first excerpt's sounds and contours, for the picture."""
        sounds = {"source": excerpt.source, "converted": excerpt.converted, "reference": excerpt.reference}
        return {title: (sound.audio, self.signals.contour(sound)) for title, sound in sounds.items() if sound}

    def _finish(self, result: Assessment) -> None:
        """Add the figures of all clips together, and the notes."""
        if self.target_embedding is not None:
            from evaluation.speaker import mean_embedding, similarity

            for key, column in result.columns.items():
                if key != TARGET and column.embeddings:
                    mean = mean_embedding(column.embeddings)
                    column.whole["similarity_of_all"] = similarity(mean, self.target_embedding)
        result.notes += self.panel.missing.values()
        if "speaker" in self.panel and not self.target_files:
            result.notes.append("speaker similarity is left out: it needs recordings of the target's voice")
        if result.seconds < LEAST_SECONDS and result.columns[CONVERTED].values("cer"):
            result.notes.append(
                f"the error rates are of {result.seconds:.0f} s; they are uncertain by a tenth or more with less than "
                f"{LEAST_SECONDS:.0f} s of sound"
            )


def _read(cases: Sequence[Case], description: str) -> Iterable[Excerpt]:
    """Yield the cases' excerpts with a progress bar over the cases."""
    for case in progress(list(cases), description=description, unit="clip"):
        yield from case.excerpts()
