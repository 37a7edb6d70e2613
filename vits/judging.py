"""Judge the validation clips of a training run in another process, so that no step waits for the judges."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.atomic_file import write_text
from modules.console import UserError, get_logger
from modules.untrusted.json_file import read_json

log = get_logger("train")

FIGURES = {"similarity": "similarity", "cer": "CER", "per": "PER", "dnsmos": "DNSMOS"}
SCORING = ("speaker", "phones")  # the judges whose opinions ``score`` needs
RESULT = "figures.json"
POLL = 0.5  # seconds between two looks at a stop signal while waiting for the judges
MOST_WAITING = 4  # validations; if the judges are slower than the run, later ones are left out


@dataclass
class _Validation:
    """The clips of one validation, until they are judged."""

    step: int
    folder: tempfile.TemporaryDirectory
    process: multiprocessing.process.BaseProcess | None = None
    speakers: list[str] = field(default_factory=list)

    def write(self, speaker: str, made: NDArray[np.float32], real: NDArray[np.float32], rate: int) -> None:
        """Write the two sounds of a clip. Raises UserError or OSError if that fails."""
        from modules.audio.files import write_audio

        for name, audio in (("made", made), ("real", real)):
            write_audio(Path(self.folder.name) / f"{name}_{len(self.speakers)}.wav", audio, rate)
        self.speakers.append(speaker)


class ClipJudges:
    """Judges the clips of one validation after the other, each in a process of low priority with one thread.

    A process ends with its validation, so the judges take memory only while they compute. ``encoder`` is the key of the
    model's speech encoder, which must not judge itself.
    """

    def __init__(self, encoder: str):
        self.encoder = encoder
        self._waiting: deque[_Validation] = deque()
        self._left_out: int | None = None  # the last step that is not judged
        self._notes: set[str] = set()  # logged once

    def add(self, step: int, speaker: str, made: NDArray[np.float32], real: NDArray[np.float32], rate: int) -> None:
        """Add a clip (L,) of the validation at ``step``, as generated and as recorded.

        The clips of a validation come one after the other. A validation that cannot be judged is left out, with a
        warning.
        """
        if step == self._left_out:
            return
        if not self._waiting or self._waiting[-1].step != step:
            if len(self._waiting) >= MOST_WAITING:
                self._left_out = step
                return self._note("the judges are slower than the validations, of which some are left out")
        try:
            if not self._waiting or self._waiting[-1].step != step:
                self._waiting.append(_Validation(step, tempfile.TemporaryDirectory(prefix="judged_clips_")))
            self._waiting[-1].write(speaker, made, real, rate)
        except (UserError, OSError) as error:
            self._left_out = step
            if self._waiting and self._waiting[-1].step == step:
                self._waiting.pop().folder.cleanup()
            self._note(f"the clips cannot be handed to the judges: {error}")

    def finished(self, current_step: int) -> list[tuple[int, dict[str, float]]]:
        """Return steps and figures of the validations that were judged since the last call.

        Starts the next validation whose clips are complete, those of steps before ``current_step``.
        """
        done = []
        while self._waiting and self._waiting[0].step < current_step:
            first = self._waiting[0]
            if not self._is_started(first):
                continue
            if first.process.is_alive():
                break
            self._waiting.popleft()
            done.append((first.step, self._collect(first)))
        return done

    def close(self, is_stopped: Callable[[], bool]) -> list[tuple[int, dict[str, float]]]:
        """Return the figures of the remaining validations; once ``is_stopped`` is true, end the judges instead."""
        done = []
        if self._waiting and not is_stopped():
            log.info("waiting for the judges of the last %d validations", len(self._waiting))
        while self._waiting and not is_stopped():
            first = self._waiting[0]
            if not self._is_started(first):
                continue
            first.process.join(POLL)
            if not first.process.is_alive() and not is_stopped():
                done += self.finished(first.step + 1)
        while self._waiting:
            last = self._waiting.pop()
            if last.process:
                last.process.terminate()
                last.process.join()
            last.folder.cleanup()
        return done

    def _is_started(self, first: _Validation) -> bool:
        """Start the judges of the first validation, if they are not; one that cannot be started is left out."""
        if first.process is not None:
            return True
        arguments = first.folder.name, first.speakers, self.encoder
        process = multiprocessing.get_context("spawn").Process(target=judge_folder, args=arguments, daemon=True)
        try:
            process.start()
        except OSError as error:
            self._waiting.popleft().folder.cleanup()
            self._note(f"the judges cannot be started: {error}")
            return False
        first.process = process
        return True

    def _collect(self, validation: _Validation) -> dict[str, float]:
        """Return the figures that the process wrote; log what is missing, once."""
        try:
            content = read_json(Path(validation.folder.name) / RESULT)
            figures, notes = content["figures"], content["notes"]
        except (OSError, ValueError):
            figures, notes = (
                {},
                [f"the judges of step {validation.step} failed (exit code {validation.process.exitcode})"],
            )
        validation.folder.cleanup()
        for note in notes:
            self._note(note)
        return figures

    def _note(self, note: str) -> None:
        if note not in self._notes:
            log.warning("train.eval_judges: %s", note)
        self._notes.add(note)


def refuse_missing_judges() -> None:
    """Raise UserError, with the install line, if a judge that ``score`` needs is not installed."""
    from evaluation.judges import Panel

    if missing := Panel(keys=SCORING).missing:
        raise UserError(f"train.best_by is judges, but {'; '.join(missing.values())}; or set it to mel")


def judge_folder(folder: str, speakers: list[str], encoder: str) -> None:
    """Judge the clips in ``folder`` and write their mean figures there; runs in a process of its own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "nice"):
        os.nice(5)
    for name in ("SIGINT", "SIGHUP"):  # these go to all processes of a terminal; the run decides when it ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    from evaluation.judges import Panel

    panel = Panel()
    panel.set_aside(encoder)
    figures = mean_figures(Path(folder), speakers, panel)
    write_text(Path(folder) / RESULT, json.dumps({"figures": figures, "notes": list(panel.missing.values())}))


def mean_figures(folder: Path, speakers: list[str], panel) -> dict[str, float]:
    """Return the means over the clips; a recording is the target of its voice, and its words are those wanted."""
    from evaluation.error_rate import character_error_rate, phone_error_rate
    from modules.audio.files import read_audio

    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    embeddings = []
    for number in range(len(speakers)):
        (made, rate), (real, _) = (read_audio(folder / f"{name}_{number}.wav") for name in ("made", "real"))
        opinions = {
            key: (panel.ask(key, made, rate), panel.ask(key, real, rate)) for key in ("speaker", "words", "phones")
        }
        embeddings.append(opinions["speaker"])
        if (opinion := panel.ask("opinion", made, rate)) is not None:
            found["dnsmos"].append(opinion)
        for name, key, error_rate in (("cer", "words", character_error_rate), ("per", "phones", phone_error_rate)):
            if opinions[key][0] is not None and opinions[key][1]:
                found[name].append(error_rate(*opinions[key]))
    found["similarity"] = _similarities(embeddings, speakers)
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _similarities(embeddings: list[tuple], speakers: list[str]) -> list[float]:
    """Return each generated clip's similarity to the mean of its speaker's recordings."""
    from evaluation.speaker import mean_embedding, similarity

    if any(made is None for made, _ in embeddings):
        return []
    targets = {
        speaker: mean_embedding([real for (_, real), own in zip(embeddings, speakers, strict=True) if own == speaker])
        for speaker in set(speakers)
    }
    return [similarity(made, targets[own]) for (made, _), own in zip(embeddings, speakers, strict=True)]


def score(figures: dict[str, float]) -> float | None:
    """Return what ``train.best_by: judges`` minimizes: phone error rate + 1 - similarity; None if one is missing.

    Both follow listeners' opinions (Singing Voice Conversion Challenge 2023); of few clips the phone error rate is
    steadier than the character error rate.
    """
    if not {"per", "similarity"} <= set(figures):
        return None
    value = figures["per"] + 1 - figures["similarity"]
    return value if math.isfinite(value) else None
