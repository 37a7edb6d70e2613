"""What a conversion must surpass: the source itself, moved to another pitch by the WORLD vocoder."""

from __future__ import annotations

import numpy as np

F0_FLOOR, F0_CEILING = 50.0, 1100.0  # Hz


def move_voice(audio: np.ndarray, sampling_rate: int, semitones: float = 0.0) -> np.ndarray:
    """Return a sound (L,) with its pitch moved by ``semitones``.

    M. Morise et al., "WORLD: a vocoder-based high-quality speech synthesis system" (2016), through pyworld. It converts
    without any training, and the pitch alone raises the similarity to a voice of that pitch. A sound shorter than three
    periods of 50 Hz is returned unchanged.
    """
    import pyworld

    if len(audio) < 3 * sampling_rate / F0_FLOOR:
        return np.asarray(audio, np.float32)
    sound = np.asarray(audio, np.float64)
    f0, times = pyworld.dio(sound, sampling_rate, F0_FLOOR, F0_CEILING)
    f0 = pyworld.stonemask(sound, f0, times, sampling_rate)
    envelope = pyworld.cheaptrick(sound, f0, times, sampling_rate)
    aperiodicity = pyworld.d4c(sound, f0, times, sampling_rate)
    made = pyworld.synthesize(f0 * 2 ** (semitones / 12), envelope, aperiodicity, sampling_rate)
    return np.pad(made, (0, max(0, len(audio) - len(made))))[: len(audio)].astype(np.float32)
