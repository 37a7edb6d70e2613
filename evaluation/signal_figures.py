"""The figures of a sound that need no judge."""

from __future__ import annotations

import math

import numpy as np

from evaluation.artefacts import clipped_share, envelope_line, find_clicks, unvoiced_line
from evaluation.cache import Cache, content_key
from evaluation.case import RATE, Excerpt, Sound
from evaluation.pitch import Contour, compare, track
from evaluation.spectral_distance import (
    level_difference,
    mel_cepstral_distance,
    stft_distance,
    warped_mel_cepstral_distance,
)
from evaluation.timing import envelope_correlation, lag
from modules.audio.files import resample
from modules.f0 import build_f0_predictor

HOP_LENGTH = 512
TRACKER = "pm"  # an algorithm, so it is no network that a conversion may have taken its F0 from
VERSION = 2  # changes when the same sounds give other figures


class SignalFigures:
    """Computes the figures by key (evaluation/metrics.py), with a cache by content.

    Args:
        cache: keeps figures.
        tracker: key of the F0 predictor. For a fair judgement it is not the network that gave the conversion its F0.
    """

    def __init__(self, cache: Cache, tracker: str = TRACKER):
        self.cache, self.tracker = cache, tracker
        self.predictor = build_f0_predictor(tracker, RATE, HOP_LENGTH)
        self._contours: dict[int, tuple[Sound, Contour]] = {}

    def contour(self, sound: Sound) -> Contour:
        """Return a sound's contour, measured once."""
        if id(sound) not in self._contours:
            self._contours[id(sound)] = sound, track(sound.audio, self.predictor)
        return self._contours[id(sound)][1]

    def forget(self) -> None:
        """Free the sounds that were measured."""
        self._contours.clear()

    def of(self, sound: Sound, excerpt: Excerpt | None = None, shift: float | None = None) -> dict[str, float]:
        """Return the figures of ``sound``; the comparisons are with the excerpt's other sounds.

        ``shift`` is by how many semitones the sound's pitch should be above the source's, by default the excerpt's.
        Figures that cannot be computed are left out.
        """
        shift = excerpt.shift if excerpt and shift is None else shift
        curve = excerpt.curve.at(self._times(sound, excerpt)) if excerpt and excerpt.curve else None
        others = (
            [(other.audio, other.rate) for other in (excerpt.source, excerpt.reference) if other] if excerpt else []
        )
        settings = [VERSION, self.tracker, shift, sound.rate, [rate for _, rate in others]]
        settings += [len(audio) for audio, _ in others] + [excerpt and excerpt.source is None]
        joined = np.concatenate([sound.audio, *(audio for audio, _ in others), *(curve or ())])
        key = content_key(joined, "figures", *settings)
        return self.cache.get(key, lambda: self._compute(sound, excerpt, shift or 0.0, curve))

    @staticmethod
    def _times(sound: Sound, excerpt: Excerpt) -> np.ndarray:
        return excerpt.start + np.arange(len(sound.audio) // HOP_LENGTH) * HOP_LENGTH / RATE

    def _compute(self, sound: Sound, excerpt: Excerpt | None, shift: float, curve: tuple | None) -> dict[str, float]:
        audio, contour = sound.audio, self.contour(sound)
        figures = {
            "frame_line": envelope_line(audio, RATE, f0=contour.f0 * contour.voiced),
            "unvoiced_line": unvoiced_line(audio, RATE, contour.voiced),
            "clicks": len(find_clicks(audio, RATE)) / max(len(audio) / RATE, 1e-9) * 60,
            "clipped": clipped_share(audio),
        }
        if excerpt and excerpt.source:
            source = excerpt.source.audio
            figures |= compare(contour, self.contour(excerpt.source).shifted(shift))
            figures["envelope_correlation"] = envelope_correlation(audio, source)
            figures["lag"] = lag(audio, source, RATE)
            figures["length"] = (len(audio) - len(source)) / RATE
        if curve is not None:
            given = Contour(curve[0] * 2 ** (shift / 12), curve[1] > 0)
            figures |= {f"given_{name}": value for name, value in compare(contour, given).items()}
        if excerpt and excerpt.reference:
            figures |= _against_reference(sound, excerpt.reference)
        return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def _against_reference(sound: Sound, reference: Sound) -> dict[str, float]:
    """Compare at the lower rate of the two files, because above its half one of them has no sound."""
    rate = min(sound.rate, reference.rate, RATE)
    made, real = (resample(one.audio, RATE, rate) for one in (sound, reference))
    return {
        "mcd": mel_cepstral_distance(made, real, rate),
        "mcd_dtw": warped_mel_cepstral_distance(made, real, rate),
        "stft": stft_distance(made, real),
        "level": level_difference(made, real),
    }
