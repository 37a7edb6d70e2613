"""Choose the key of a conversion from the F0 of the song and of the speaker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modules.console import UserError, get_logger, option

log = get_logger("convert")

OCTAVE = 12  # semitones


def choose_octaves(f0: np.ndarray, speaker_range: Sequence[float], song: str | Path, speaker: str) -> int:
    """Return the shift in semitones, whole octaves, that brings a song's median F0 closest to the speaker's; log it.

    Only octaves keep a song in tune with its accompaniment.

    Args:
        f0: Hz of the song's voiced frames.
        speaker_range: the 10th, 50th and 90th percentile of the speaker's F0 in Hz.
        song, speaker: their names.

    Raises UserError if there is no F0.
    """
    if not len(f0):
        raise UserError(f"{song} has no F0 from which a key could be chosen; give {option('tran')} as a number")
    low, median, high = speaker_range
    exact = OCTAVE * np.log2(median / np.median(f0))
    shift = OCTAVE * round(exact / OCTAVE)
    log.info(
        "%s: key %+d; its median F0 is %.0f Hz, that of %s %.0f Hz (%.0f to %.0f Hz); the medians are %+.1f semitones "
        "apart", song, shift, np.median(f0), speaker, median, low, high, exact,
    )  # fmt: skip
    return shift
