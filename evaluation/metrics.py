"""The figures of an evaluation: one table of names, units and directions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One figure.

    Attributes:
        label: its name in tables.
        group: what the sound is compared with.
        better: 1 if more is better, -1 if less is better, 0 if nearer to zero is better.
        digits: decimals in tables.
        factor: a figure times this is what tables show, in the label's unit.
    """

    label: str
    group: str
    better: int
    digits: int = 2
    factor: float = 1

    def short_label(self) -> str:
        """Return the label without its unit."""
        return self.label.strip().partition(",")[0].partition(" (")[0]

    def full_label(self) -> str:
        """Return the label with the group, if figures of several groups have the same label."""
        return f"{self.label.strip()} {self.group}" if self.group in (SOURCE, GIVEN) else self.label.strip()

    def text(self, value: float | None) -> str:
        """Return a value as tables show it; a dash for None."""
        return "-" if value is None else f"{value * self.factor:.{self.digits}f}"


TARGET, WORDS, ITSELF = "against the target's recordings", "words", "by itself"
SOURCE, GIVEN, REFERENCE = "against the source", "against the F0 that the decoder was given", "against the reference"

METRICS: dict[str, Metric] = {
    "similarity": Metric("speaker similarity (cosine)", TARGET, 1, 3),
    "similarity_of_all": Metric("  all clips averaged", TARGET, 1, 3),
    "dnsmos": Metric("DNSMOS, a speech model's opinion (1-5)", ITSELF, 1),
    "frame_line": Metric("line at the frame rate, dB", ITSELF, -1, 1),
    "unvoiced_line": Metric("  line above 3 kHz in unvoiced frames, dB", ITSELF, -1, 1),
    "clicks": Metric("clicks per minute", ITSELF, -1, 1),
    "clipped": Metric("clipped samples, %", ITSELF, -1, 3, 100),
    "cer": Metric("character error rate", WORDS, -1, 3),
    "per": Metric("phone error rate", WORDS, -1, 3),
    "f0_correlation": Metric("F0 correlation (log)", SOURCE, 1, 3),
    "f0_cents": Metric("F0 RMSE, cents", SOURCE, -1, 0),
    "f0_median_cents": Metric("F0 median absolute difference, cents", SOURCE, -1, 1),
    "vuv_f1": Metric("voicing F1", SOURCE, 1, 3),
    "periodicity_error": Metric("periodicity RMSE", SOURCE, -1, 3),
    "envelope_correlation": Metric("loudness envelope correlation", SOURCE, 1, 3),
    "lag": Metric("lag, ms", SOURCE, 0, 1, 1000),
    "length": Metric("length difference, ms", SOURCE, 0, 1, 1000),
    "given_f0_correlation": Metric("F0 correlation (log)", GIVEN, 1, 3),
    "given_f0_cents": Metric("F0 RMSE, cents", GIVEN, -1, 0),
    "given_f0_median_cents": Metric("F0 median absolute difference, cents", GIVEN, -1, 1),
    "given_vuv_f1": Metric("voicing F1", GIVEN, 1, 3),
    "mcd": Metric("mel-cepstral distance, dB", REFERENCE, -1),
    "mcd_dtw": Metric("  with dynamic time warping, dB", REFERENCE, -1),
    "stft": Metric("multi-resolution STFT distance", REFERENCE, -1),
    "level": Metric("level difference, dB", REFERENCE, 0, 1),
}
