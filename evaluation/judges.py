"""Judges: networks that rate a sound as a listener would. Their weights lie in packages (requirements-evaluate.txt).

To add one, write a class in evaluation/, a row in JUDGES below, its packages in requirements-evaluate.txt, its figures
in evaluation/metrics.py, and a test in tests/test_judges.py.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.cache import Cache, content_key
from modules.audio.files import resample
from modules.console import get_logger
from modules.registry import Registry, Row

log = get_logger("evaluate")

JUDGE_RATE = 16000  # Hz, of the sounds that are judged
JUDGE_PEAK = 0.7  # the judges' opinions depend on the level, so every sound has this peak
VERSION = 1  # changes when the same sound gives another judgement


class Judge(ABC):
    """``judge(audio)`` -> its opinion of (L,) float32 at 16 kHz with the peak 0.7, as a value for JSON.

    ``settings`` is what, beside the sound, determines the opinion.
    """

    settings: tuple = ()

    @abstractmethod
    def __call__(self, audio: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class JudgeRow(Row):
    """One judge.

    Attributes:
        target: its class.
        what: what it gives, for messages.
        packages: names of the modules that it needs, beside those of requirements.txt.
        distributions: the packages whose versions determine its opinion.
        install: the commands that install it.
    """

    what: str = ""
    packages: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    install: str = "pip install -r requirements-evaluate.txt"

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def versions(self) -> tuple[str, ...]:
        return tuple(f"{name} {importlib.metadata.version(name)}" for name in self.distributions)


JUDGES: Registry[JudgeRow] = Registry(
    "judge",
    {
        "speaker": JudgeRow(
            "evaluation.speaker:SpeakerEncoder",
            "speaker similarity",
            ("resemblyzer", "webrtcvad"),
            ("resemblyzer",),
            "pip install -r requirements-evaluate.txt && pip install --no-deps resemblyzer",
        ),
        "opinion": JudgeRow(
            "evaluation.opinion:SpeechOpinion", "DNSMOS", ("speechmos", "onnxruntime", "requests"), ("speechmos",)
        ),
        "words": JudgeRow(
            "evaluation.words:Transcriber",
            "character error rate",
            ("faster_whisper", "jiwer"),
            ("faster-whisper", "ctranslate2"),
        ),
        "phones": JudgeRow("evaluation.phones:PhoneReader", "phone error rate", ("hama", "jiwer"), ("hama",)),
    },
)


class Panel:
    """The judges that are installed, each loaded on first use, with their opinions in a cache.

    Args:
        cache: keeps opinions; in memory only by default.
        whisper: a folder with a CTranslate2 Whisper, or a name in faster-whisper's own cache; None for the default.
        keys: the judges to ask, all by default.
    """

    def __init__(self, cache: Cache | None = None, whisper: str | None = None, keys: tuple[str, ...] | None = None):
        self.cache = cache or Cache()
        self.missing: dict[str, str] = {}  # key -> a sentence with the install line
        self._options = {"words": (whisper,)}
        self._judges: dict[str, Judge | None] = {}
        for key in JUDGES if keys is None else keys:
            row = JUDGES[key]
            if absent := row.missing():
                verb = "is" if len(absent) == 1 else "are"
                self.missing[key] = f"{row.what} is left out: {', '.join(absent)} {verb} not installed; {row.install}"
            else:
                self._judges[key] = None

    def set_aside(self, encoder: str) -> None:
        """Leave the recogniser of words out if the model's speech encoder is the same network: it would judge itself.

        A named Whisper is used all the same, with a warning if the encoder is a Whisper.
        """
        from evaluation.words import NAME, SAME_NETWORK

        if "words" not in self._judges:
            return
        if self._options["words"] == (None,) and encoder in SAME_NETWORK:
            del self._judges["words"]
            self.missing["words"] = (
                f"{JUDGES['words'].what} is left out: the model's speech encoder {encoder} and the recogniser are the "
                f"same network, Whisper {NAME}; name another one"
            )
        elif self._options["words"] != (None,) and "whisper" in encoder:
            log.warning("the recogniser of words must not be the network of the speech encoder %s", encoder)

    def __contains__(self, key: str) -> bool:
        return key in self._judges

    def ask(self, key: str, audio: np.ndarray, rate: int) -> Any:
        """Return the opinion of the judge ``key`` about (L,) samples; None if the judge is missing."""
        if key not in self._judges:
            return None
        judge = self._load(key)
        if judge is None:
            return None
        sound = prepare(audio, rate)
        name = content_key(sound, "judge", VERSION, key, JUDGES[key].versions(), judge.settings)
        return self.cache.get(name, lambda: judge(sound))

    def _load(self, key: str) -> Judge | None:
        """Load a judge; one that cannot be loaded becomes missing, with the reason."""
        if self._judges[key] is None:
            row = JUDGES[key]
            try:
                self._judges[key] = row.load()(*self._options.get(key, ()))
            except (ImportError, FileNotFoundError) as error:
                del self._judges[key]
                self.missing[key] = f"{row.what} is left out: {error}"
                return None
        return self._judges[key]


def prepare(audio: np.ndarray, rate: int) -> np.ndarray:
    """Return (L,) samples at 16 kHz, float32, with the peak that all sounds have before judging."""
    sound = resample(np.asarray(audio, np.float32), rate, JUDGE_RATE)
    peak = np.abs(sound).max(initial=0)
    return sound * np.float32(JUDGE_PEAK / peak) if peak > 0 else sound
