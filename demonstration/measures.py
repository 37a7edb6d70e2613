"""Measures of a converted song whose notes, and whose ideal conversion, are known.

Signals are mono float arrays (L,); frame t is at sample t * HOP_LENGTH.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, signal

HOP_LENGTH = 512
N_FFT = 2048
N_MELS = 80
N_CEPSTRA = 24
FLOOR_DB = -80.0  # floor of the mel bands, relative to the song's loudest band
SILENCE_DB = -40.0  # level of silent frames, relative to the song's loudest frame


def f0_correlation(f0: np.ndarray, voiced: np.ndarray, true_f0: np.ndarray, true_voiced: np.ndarray) -> float:
    """Return the Pearson correlation of two contours in Hz (T,) over the frames voiced in both; 0 for less than two."""
    both = np.asarray(voiced, bool) & np.asarray(true_voiced, bool)
    if both.sum() < 2:
        return 0.0
    return float(np.corrcoef(np.asarray(f0)[both], np.asarray(true_f0)[both])[0, 1])


def voicing_error(voiced: np.ndarray, true_voiced: np.ndarray) -> float:
    """Return the share of all frames (T,), rests included, whose voicing decision is wrong."""
    return float(np.mean(np.asarray(voiced, bool) != np.asarray(true_voiced, bool)))


def mel_cepstral_distance(audio: np.ndarray, reference: np.ndarray, sampling_rate: int) -> float:
    """Return the mean distance in dB of two time-aligned songs, over the frames where the reference is not silent.

    10 / ln 10 * sqrt(2 * sum (c_m - c'_m)^2) (Kubichek 1993), where c_m, m = 1...24, are the cosine coefficients of a
    frame's ln mel spectrum (c_0, the loudness, is left out). This is the RMS difference in dB of the two smoothed
    spectra. There is no time warping.
    """
    length = min(len(audio), len(reference))
    first, _ = _cepstra(audio[:length], sampling_rate)
    second, level = _cepstra(reference[:length], sampling_rate)
    audible = level > level.max() + SILENCE_DB
    difference = np.square(first - second)[:, audible].sum(axis=0)
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * difference)))


def _cepstra(audio: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cepstra c_1...c_24 (24, T) of the ln mel magnitudes, and the frame levels (T,) in dB."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=np.asarray(audio, np.float32), sr=sampling_rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS, power=1.0
    )
    level = 10 * np.log10(np.square(mel).sum(axis=0) + 1e-20)
    mel = np.maximum(mel, max(mel.max(), 1e-10) * 10 ** (FLOOR_DB / 20))
    return fft.dct(np.log(mel), type=2, axis=0)[1 : N_CEPSTRA + 1] / N_MELS, level


def envelope_line(audio: np.ndarray, sampling_rate: int, frequency: float | None = None) -> float:
    """Return the level in dB of a line at ``frequency`` Hz above its surroundings in the amplitude envelope's spectrum.

    The envelope is the magnitude of the analytic signal; its power spectrum is averaged over windows of two seconds
    (Welch). The result compares the strongest bin within 1 Hz of ``frequency`` with the median of the bins 2 to 15 Hz
    away. ``frequency`` is the frame rate by default, where a decoder with steps between frames has such a line.
    """
    frequency = frequency or sampling_rate / HOP_LENGTH
    analytic = signal.hilbert(audio, fft.next_fast_len(len(audio), real=False))[: len(audio)]
    step = sampling_rate // 2000
    envelope = signal.decimate(np.abs(analytic), step, ftype="fir")
    rate = sampling_rate / step
    bins, power = signal.welch(envelope, rate, nperseg=min(int(2 * rate), len(envelope)))
    distance = np.abs(bins - frequency)
    line = power[distance <= 1.0].max()
    around = np.median(power[(distance >= 2.0) & (distance <= 15.0)])
    return float(10 * np.log10(line / around))
