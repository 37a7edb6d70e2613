"""Artefacts that can be found in a converted sound without any other sound.

Sounds are mono float arrays (L,).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

HOP_LENGTH = 512
FULL_SCALE = 0.9999  # a sample of at least this level counts as clipped
UNVOICED_BAND = 3000.0  # Hz; in unvoiced frames the line is measured above this frequency
LEAST_UNVOICED = 0.5  # seconds, of unvoiced sound in which a line is measured
NEAR = 15.0  # Hz; F0 as near as this to the line is taken for it
LEAST_LINE = 1.0  # seconds, of sound in which a line is measured
SILENCE_DB = -50.0  # level of silent frames, relative to the loudest frame
CLICK = 4.0  # a click's second difference, relative to the greatest one on both sides
CLICK_GAP, CLICK_REACH = 0.0007, 0.012  # seconds between a click and its surroundings, and their length
CLICK_LEAST = 2e-3  # smallest second difference of a click, relative to the peak


def clipped_share(audio: np.ndarray) -> float:
    """Return the share of samples at full scale, 0 to 1."""
    return float(np.mean(np.abs(audio) >= FULL_SCALE))


def find_clicks(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return the samples (N,) at which clicks are: steps and single deviating samples, as bad joins have them.

    A click's second difference is more than four times the greatest one within 12 ms on each side of it, from 0.7 ms
    on. Onsets are loud on one side, and voices have a similar peak in each period (to 80 Hz), so these do not count.
    """
    sharpness = np.abs(np.diff(audio, n=2, prepend=audio[:1], append=audio[-1:]))
    gap, reach = round(CLICK_GAP * sampling_rate), round(CLICK_REACH * sampling_rate)
    if len(audio) < 2 * reach:
        return np.zeros(0, int)
    greatest = ndimage.maximum_filter1d(sharpness, reach, mode="nearest")  # of the reach around each sample
    offset = gap + reach // 2
    indices = np.arange(len(audio))
    before, after = (greatest[np.clip(indices + side * offset, 0, len(audio) - 1)] for side in (-1, 1))
    least = max(CLICK_LEAST * np.abs(audio).max(), 1e-6)
    found = np.flatnonzero((sharpness > CLICK * np.maximum(before, after)) & (sharpness > least))
    return found[np.diff(found, prepend=-gap - 1) > gap]


def envelope_line(
    audio: np.ndarray, sampling_rate: int, frequency: float | None = None, f0: np.ndarray | None = None
) -> float:
    """Return the level in dB of a line at ``frequency`` Hz above its surroundings in the amplitude envelope's spectrum.

    The envelope is the magnitude of the analytic signal; its power spectrum is averaged over windows of two seconds
    (Welch). The result compares the strongest bin within 1 Hz of ``frequency`` with the median of the bins 2 to 15 Hz
    away. ``frequency`` is the frame rate by default, where a decoder with steps between frames has such a line. White
    noise has -1 to 6 dB, the less the longer it is.

    A voice whose F0 is ``frequency`` has a line there too (the frame rate, 86.1 Hz, is near F2). Windows that contain
    frames within 15 Hz of it are left out: ``f0`` is Hz (T,), one value every 512 samples, 0 where unvoiced. NaN for
    less than a second, or if no window is left.
    """
    if len(audio) < LEAST_LINE * sampling_rate:
        return float("nan")
    envelope, rate = _envelope(audio, sampling_rate)
    frequency = frequency or sampling_rate / HOP_LENGTH
    near = np.zeros(0) if f0 is None else np.flatnonzero(np.abs(f0 - frequency) < NEAR)
    return _line(envelope, rate, frequency, near * HOP_LENGTH / sampling_rate)


def unvoiced_line(
    audio: np.ndarray, sampling_rate: int, voiced: np.ndarray, frequency: float | None = None, hop_length: int = 512
) -> float:
    """Return ``envelope_line`` above 3 kHz in the unvoiced frames that are not silent.

    ``voiced`` (T,) is a frame's voicing, every ``hop_length`` samples. There the line is a comb in the spectra of
    fricatives, which the whole envelope hardly shows. NaN if less than half a second is unvoiced sound.
    """
    frames = min(len(audio) // hop_length, len(voiced))
    power = np.square(audio[: frames * hop_length].reshape(frames, hop_length)).mean(axis=1)
    wanted = ~np.asarray(voiced[:frames], bool) & (power > power.max(initial=0) * 10 ** (SILENCE_DB / 10))
    if wanted.sum() * hop_length < LEAST_UNVOICED * sampling_rate:
        return float("nan")
    high_pass = signal.butter(6, UNVOICED_BAND, "highpass", fs=sampling_rate, output="sos")
    envelope, rate = _envelope(signal.sosfilt(high_pass, audio), sampling_rate)
    at = np.minimum((np.arange(len(envelope)) / rate * sampling_rate / hop_length).astype(int), frames - 1)
    width = round(2 * hop_length / sampling_rate * rate)  # two frames, by which each stretch fades in and out
    mask = np.convolve(wanted[at].astype(float), np.hanning(width + 2)[1:-1], mode="same")
    mask *= wanted[at] / mask.max()
    # The local level is removed and divided out, so that only the modulation is left, not the syllables.
    smooth = signal.windows.hann(round(0.05 * rate))
    level = np.convolve(envelope * mask, smooth, "same") / np.maximum(np.convolve(mask, smooth, "same"), 1e-6)
    modulation = mask * (envelope / np.maximum(level, level.max() * 1e-4) - 1)
    return _line(modulation, rate, frequency or sampling_rate / HOP_LENGTH)


def _envelope(audio: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, float]:
    """Return the magnitude of the analytic signal at about 2 kHz, and its rate in Hz."""
    from scipy import fft

    analytic = signal.hilbert(audio, fft.next_fast_len(len(audio), real=False))[: len(audio)]
    step = sampling_rate // 2000
    return signal.decimate(np.abs(analytic), step, ftype="fir"), sampling_rate / step


def _line(envelope: np.ndarray, rate: float, frequency: float, without: np.ndarray | tuple = ()) -> float:
    """Return the line's level; windows that contain one of the times ``without`` in seconds are left out."""
    length = min(int(2 * rate), len(envelope))
    bins, centres, powers = signal.spectrogram(envelope, rate, "hann", length, length // 2)
    times = np.asarray(without, float)
    wanted = [not np.any(np.abs(times - centre) <= length / rate / 2) for centre in centres]
    if not any(wanted):
        return float("nan")
    power = powers[:, wanted].mean(axis=1)
    distance = np.abs(bins - frequency)
    line = power[distance <= 1.0].max()
    around = np.median(power[(distance >= 2.0) & (distance <= 15.0)])
    return float(10 * np.log10(line / around)) if around > 0 else float("nan")
