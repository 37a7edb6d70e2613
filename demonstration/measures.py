"""What a converted song is measured by when the notes, and the target voice singing them, are known.

Signals are mono float arrays (L,); frames stand ``HOP_LENGTH`` samples apart, frame t at sample t * HOP_LENGTH.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, signal

HOP_LENGTH = 512
N_FFT = 2048
N_MELS = 80
N_CEPSTRA = 24
FLOOR_DB = -80.0  # of a mel band, below the loudest band of the song
SILENCE_DB = -40.0  # of a frame, below the loudest frame of the song


def f0_correlation(f0: np.ndarray, voiced: np.ndarray, true_f0: np.ndarray, true_voiced: np.ndarray) -> float:
    """Pearson correlation of two contours in Hz (T,) over the frames that both call voiced; 0 when fewer than two."""
    both = np.asarray(voiced, bool) & np.asarray(true_voiced, bool)
    if both.sum() < 2:
        return 0.0
    return float(np.corrcoef(np.asarray(f0)[both], np.asarray(true_f0)[both])[0, 1])


def voicing_error(voiced: np.ndarray, true_voiced: np.ndarray) -> float:
    """Share of all frames (T,), rests included, that are called voiced and are not, or the other way about."""
    return float(np.mean(np.asarray(voiced, bool) != np.asarray(true_voiced, bool)))


def mel_cepstral_distance(audio: np.ndarray, reference: np.ndarray, sampling_rate: int) -> float:
    """Mean distance in dB of two songs that run in step, over the frames where the reference is not silent.

    With c_m the cosine coefficients of a frame's ln mel spectrum, m = 1...24 (c_0, the loudness, is left out):
    10 / ln 10 * sqrt(2 * sum (c_m - c'_m)^2) (Kubichek 1993), which is the RMS difference in dB of the two smoothed
    spectra. No time warping.
    """
    length = min(len(audio), len(reference))
    first, _ = _cepstra(audio[:length], sampling_rate)
    second, level = _cepstra(reference[:length], sampling_rate)
    heard = level > level.max() + SILENCE_DB
    difference = np.square(first - second)[:, heard].sum(axis=0)
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * difference)))


def _cepstra(audio: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Cepstra c_1...c_24 (24, T) of the ln mel magnitudes, and the frames' level (T,) in dB."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=np.asarray(audio, np.float32), sr=sampling_rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS, power=1.0
    )
    level = 10 * np.log10(np.square(mel).sum(axis=0) + 1e-20)
    mel = np.maximum(mel, max(mel.max(), 1e-10) * 10 ** (FLOOR_DB / 20))
    return fft.dct(np.log(mel), type=2, axis=0)[1 : N_CEPSTRA + 1] / N_MELS, level


def envelope_line(audio: np.ndarray, sampling_rate: int, frequency: float | None = None) -> float:
    """By how many dB a line at ``frequency`` Hz stands out of the spectrum of the amplitude envelope.

    The envelope is the magnitude of the analytic signal; its power spectrum is averaged over windows of two seconds
    (Welch). The result is the strongest bin within 1 Hz of ``frequency`` against the median of the bins 2 to 15 Hz
    away. A decoder that sets each frame apart from the next leaves such a line at the frame rate, the default.
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
