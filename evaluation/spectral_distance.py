"""Distances between the spectra of two sounds.

Sounds are mono float arrays (L,), both at one rate in Hz; the longer one is cut.
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.spatial.distance import cdist

HOP_LENGTH = 512
N_FFT = 2048
N_MELS = 80
N_CEPSTRA = 24
FLOOR_DB = -80.0  # floor of the mel bands, relative to the song's loudest band
SILENCE_DB = -40.0  # level of silent frames, relative to the song's loudest frame
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # samples: FFT, hop, window
LEAST_MAGNITUDE = 1e-7  # of the short-time spectra whose logarithms are compared


def mel_cepstral_distance(audio: np.ndarray, reference: np.ndarray, sampling_rate: int) -> float:
    """Return the mean distance in dB of two time-aligned songs, over the frames where the reference is not silent.

    10 / ln 10 * sqrt(2 * sum (c_m - c'_m)^2) (Kubichek 1993), where c_m, m = 1...24, are the cosine coefficients of a
    frame's ln mel spectrum (c_0, the loudness, is left out). This is the RMS difference in dB of the two smoothed
    spectra. There is no time warping.
    """
    first, second, audible = _both_cepstra(*_equally_long(audio, reference), sampling_rate)
    difference = np.square(first - second)[:, audible].sum(axis=0)
    return float(np.mean(_decibels(np.sqrt(difference))))


def warped_mel_cepstral_distance(audio: np.ndarray, reference: np.ndarray, sampling_rate: int) -> float:
    """Return ``mel_cepstral_distance`` after dynamic time warping of the two songs, for different timing.

    The mean is over the pairs of frames on the warping path where the reference is not silent. Takes memory for a
    matrix of the two lengths in frames: 6 MB for ten seconds.
    """
    import librosa

    first, second, audible = _both_cepstra(audio, reference, sampling_rate)
    cost = cdist(first.T, second.T)
    _, path = librosa.sequence.dtw(C=cost)
    rows, columns = path.T
    return float(np.mean(_decibels(cost[rows, columns][audible[columns]])))


def _decibels(distance: np.ndarray) -> np.ndarray:
    return 10 / np.log(10) * np.sqrt(2) * distance


def _equally_long(audio: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = min(len(audio), len(reference))
    return audio[:length], reference[:length]


def _both_cepstra(audio: np.ndarray, reference: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cepstra (24, T) of both, and where the reference is not silent (T,)."""
    first, _ = _cepstra(audio, rate)
    second, level = _cepstra(reference, rate)
    return first, second, level > level.max() + SILENCE_DB


def _cepstra(audio: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cepstra c_1...c_24 (24, T) of the ln mel magnitudes, and the frame levels (T,) in dB."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=np.asarray(audio, np.float32), sr=sampling_rate, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS, power=1.0
    )
    level = 10 * np.log10(np.square(mel).sum(axis=0) + 1e-20)
    mel = np.maximum(mel, max(mel.max(), 1e-10) * 10 ** (FLOOR_DB / 20))
    return fft.dct(np.log(mel), type=2, axis=0)[1 : N_CEPSTRA + 1] / N_MELS, level


def stft_distance(audio: np.ndarray, reference: np.ndarray) -> float:
    """Return the multi-resolution STFT distance of two time-aligned songs (Yamamoto et al. 2020, arXiv:1910.11480).

    The mean, over three window lengths, of spectral convergence (the norm of the difference of the magnitudes, divided
    by the norm of the reference's) and the mean absolute difference of the ln magnitudes. A gain of g alone gives
    |1 - g| + |ln g|.
    """
    import librosa

    audio, reference = (np.asarray(sound, np.float32) for sound in _equally_long(audio, reference))
    distances = []
    for n_fft, hop, window in RESOLUTIONS:
        made, real = (
            np.maximum(np.abs(librosa.stft(sound, n_fft=n_fft, hop_length=hop, win_length=window)), LEAST_MAGNITUDE)
            for sound in (audio, reference)
        )
        convergence = np.linalg.norm(made - real) / np.linalg.norm(real)
        distances.append(convergence + np.abs(np.log(made) - np.log(real)).mean())
    return float(np.mean(distances))


def level_difference(audio: np.ndarray, reference: np.ndarray) -> float:
    """Return by how many dB the sound's RMS is above the reference's, over their common length."""
    made, real = (np.mean(np.square(sound, dtype=np.float64)) for sound in _equally_long(audio, reference))
    return float(10 * np.log10((made + 1e-20) / (real + 1e-20)))
