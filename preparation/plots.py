"""F0 drawn over the spectrogram, because people judge pitch by looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from modules.atomic_file import output_path
from modules.audio.files import read_audio
from modules.audio.spectrogram import linear_spectrogram
from modules.config import Config
from modules.console import UserError, get_logger
from modules.data.features import ClipFiles, find_clips

log = get_logger("features")

SAMPLE = 12  # clips
WINDOW = 4096  # samples: long enough to part the harmonics of a low voice
LOWEST, HIGHEST = 40.0, 2500.0  # Hz
RANGE = 70.0  # dB below the loudest point that are drawn


def plot_f0(folder: str | Path, config: Config, out: str | Path) -> list[Path]:
    """Draw a sample of the clips ``folder/<speaker>/*.wav`` that have F0 into ``out/<speaker>_<clip>.png``.

    Returns the pictures' paths. A clip that cannot be read is named in the log and has none.
    """
    clips = [clip for speaker in find_clips(folder).values() for clip in speaker if ClipFiles(clip).f0.exists()]
    pictures = []
    for clip in spread(clips, SAMPLE):
        try:
            pictures.append(draw(clip, config, Path(out)))
        except UserError as error:
            log.warning("not drawn: %s", error)
    return pictures


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of the items, evenly spaced from the first on."""
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]


def draw(clip: Path, config: Config, out: Path) -> Path:
    """One picture: the spectrogram of a clip, its F0 where it is voiced, and thin where it is drawn through a gap.

    Raises UserError when the clip or its F0 cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    audio, rate = read_audio(clip)
    f0, uv = ClipFiles(clip).read_f0()
    hop = config.data.hop_length
    times = np.arange(len(f0)) * hop / rate
    figure = Figure(figsize=(14, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="seconds", ylabel="Hz", yscale="log")
    levels, frequencies = _levels(audio, rate, hop)
    axes.pcolormesh(np.arange(levels.shape[1]) * hop / rate, frequencies, levels, cmap="magma", shading="nearest")
    axes.plot(times, np.where(f0 > 0, f0, np.nan), color="white", linewidth=0.5, label="interpolated")
    axes.plot(times, np.where(uv > 0, f0, np.nan), color="cyan", linewidth=1.5, label=f"voiced, {uv.mean():.0%}")
    axes.set_ylim(LOWEST, HIGHEST)
    axes.legend(loc="upper right", facecolor="black", labelcolor="white")
    path = out / f"{clip.parent.name}_{clip.stem}.png"
    with output_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return path


def _levels(audio: np.ndarray, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """dB below the loudest point, ``(F, T)``, and the frequencies in Hz, of what is drawn."""
    padded = np.pad(audio, (0, max(WINDOW - len(audio), 0)))
    spec = linear_spectrogram(torch.from_numpy(padded)[None], WINDOW, hop, WINDOW)[0]
    frequencies = np.arange(len(spec)) * rate / WINDOW
    drawn = (frequencies >= LOWEST) & (frequencies <= HIGHEST)
    levels = 20 * np.log10(spec.numpy()[drawn])
    return levels.clip(min=levels.max() - RANGE) - levels.max(), frequencies[drawn]
