"""The goals of the demo's song, and the measured values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demonstration.measures import f0_correlation, voicing_error
from evaluation.artefacts import envelope_line
from evaluation.signal_figures import HOP_LENGTH
from evaluation.spectral_distance import mel_cepstral_distance

# Three different methods; two must reach the goal for F0. A buzz at the frame rate misleads Praat's method (pm), which
# takes the strongest period, more than the others. The goal for voicing counts for pm only.
PREDICTORS = ("pm", "harvest", "fcpe")
LEAST_CORRELATION = 0.95
MOST_VOICING_ERROR = 0.19
MOST_DISTANCE = 0.85  # relative to the distance between the unconverted song and the target


@dataclass(frozen=True)
class Report:
    """Measures of a converted song; distances are mel-cepstral, in dB."""

    correlations: dict[str, float]  # predictor -> correlation of the measured F0 with the notes
    voicing_errors: dict[str, float]  # predictor -> share of all frames
    to_target: float  # from the output to the target voice singing the same song
    to_source: float  # from the output to the unconverted song
    unconverted: float  # from the unconverted song to the target voice
    buzz: float  # dB of the line at the frame rate, above the target's

    def figures(self) -> dict[str, float]:
        """Return the values that have a goal, by name; ``correlation`` is from the second-best predictor."""
        return {
            "correlation": sorted(self.correlations.values())[-2],
            "voicing_error": self._voicing_error,
            "distance": self.to_target / self.unconverted,
            "nearer_to_target": self.to_source - self.to_target,
        }

    def missed(self) -> list[str]:
        """Return the goals that are missed, as text."""
        goals = {
            f"F0 correlation of at least {LEAST_CORRELATION} by two predictors": (
                sorted(self.correlations.values())[-2] >= LEAST_CORRELATION
            ),
            f"voicing error of at most {MOST_VOICING_ERROR:.0%}": self._voicing_error <= MOST_VOICING_ERROR,
            f"distance of at most {MOST_DISTANCE} of the input's": self.to_target <= MOST_DISTANCE * self.unconverted,
            "nearer to the target's voice than to the source's": self.to_target < self.to_source,
        }
        return [goal for goal, reached in goals.items() if not reached]

    @property
    def _voicing_error(self) -> float:
        return self.voicing_errors[PREDICTORS[0]]

    def __str__(self) -> str:
        correlations = ", ".join(f"{value:.3f} ({key})" for key, value in self.correlations.items())
        errors = ", ".join(f"{value:.1%} ({key})" for key, value in self.voicing_errors.items())
        return "\n".join(
            [
                f"goal: F0 correlation with the notes    two of at least {LEAST_CORRELATION}: {correlations}",
                f"goal: voiced/unvoiced error            at most {MOST_VOICING_ERROR:.0%}: {errors}",
                f"goal: mel-cepstral distance to target  at most {MOST_DISTANCE} of the unconverted song's: "
                f"{self.to_target:.2f} dB, {self.to_target / self.unconverted:.2f} of {self.unconverted:.2f} dB",
                f"goal: mel-cepstral distance to source  more than to the target: {self.to_source:.2f} dB",
                f"line at the frame rate                 {self.buzz:+.1f} dB against the target's",
            ]
        )


def measure(output: np.ndarray, source: np.ndarray, target: np.ndarray, f0: np.ndarray, rate: int) -> Report:
    """Measure a converted song (L,); ``f0`` (T,) are its true notes in Hz, 0 where unvoiced."""
    from modules.f0 import build_f0_predictor

    correlations, errors = {}, {}
    for key in PREDICTORS:
        measured, uv = build_f0_predictor(key, rate, HOP_LENGTH)(np.asarray(output, np.float32))
        frames = min(len(measured), len(f0))
        correlations[key] = f0_correlation(measured[:frames], uv[:frames], f0[:frames], f0[:frames] > 0)
        errors[key] = voicing_error(uv[:frames], f0[:frames] > 0)
    return Report(
        correlations,
        errors,
        to_target=mel_cepstral_distance(output, target, rate),
        to_source=mel_cepstral_distance(output, source, rate),
        unconverted=mel_cepstral_distance(source, target, rate),
        buzz=envelope_line(output, rate) - envelope_line(target, rate),
    )
