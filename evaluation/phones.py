"""The phones of a sound or of an English text, by hama."""

from __future__ import annotations

import functools

import numpy as np

from evaluation.judges import JUDGE_RATE, Judge
from evaluation.words import normalize


class PhoneReader(Judge):
    """The phone recogniser of hama (Apache-2.0), a small network with CTC. An opinion is the phones, with spaces.

    It has no model of the language, so its errors follow the sound and do not come in loops.
    """

    def __init__(self):
        from hama import ASRModel

        self.model = ASRModel()

    def __call__(self, audio: np.ndarray) -> str:
        result = self.model.transcribe_waveform(np.asarray(audio, np.float32), JUDGE_RATE)
        return " ".join(result.phonemes)


@functools.lru_cache(maxsize=1)
def _pronunciations():
    from hama import G2PModel

    return G2PModel()


def phones_of_text(text: str) -> str:
    """Return the phones of an English text, separated by spaces, in the recogniser's notation."""
    words = normalize(text).replace("'", "")
    return " ".join(part.phoneme for part in _pronunciations().predict(words).alignments) if words else ""
