"""A live conversion of a file: the session of a sound card, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from live.converter import StreamingConverter
from live.rates import in_step
from live.session import BUFFER, Session, calibrate
from live.simulation import Simulation
from modules.audio.files import read_audio, resample, write_audio
from modules.console import progress


def convert_file(
    converter: StreamingConverter, source: Path, target: Path, fixed_delay: float | None = None
) -> Session:
    """Convert ``source`` as a sound card that plays it would, and write what would be heard, with the delay.

    Computing takes virtual time as it takes real time on this computer, so gaps are where they would be live. A file of
    an unusual rate, 22051 Hz, is resampled to the model's rate first, and so is written with that rate. Returns
    the session. Raises UserError if a file cannot be read or written, or the fixed delay is too short.
    """
    sound, rate = read_audio(source)
    if not in_step(rate, converter.rate):
        sound, rate = resample(sound, rate, converter.rate), converter.rate
    buffer = round(BUFFER * rate)
    session = Session(converter, rate, buffer, calibrate(converter), fixed_delay=fixed_delay)
    simulation = Simulation(session, rate, buffer)
    tail = np.zeros(math.ceil(session.delays().total * rate), np.float32)
    sound = np.concatenate((sound, tail))
    write_audio(target, _watched(simulation.run(sound), buffer / rate, len(sound) / rate), rate)
    return session


def _watched(buffers: Iterator[np.ndarray], seconds: float, total: float) -> Iterator[np.ndarray]:
    """Yield the buffers of ``seconds`` each, with a progress bar over the ``total`` seconds."""
    with progress(total=round(total), description="live conversion", unit="s") as bar:
        for count, audio in enumerate(buffers, 1):
            yield audio
            done = min(int(count * seconds), round(total))
            if done > bar.n:
                bar.update(done - bar.n)
