"""Plots of F0 over the spectrogram, to check F0 by eye."""

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

MAX_PICTURES = 12  # clips
WINDOW = 4096  # samples; long enough to separate the harmonics of a low voice
LOWEST, HIGHEST = 40.0, 2500.0  # Hz
RANGE = 70.0  # dB below the loudest point


def plot_f0(folder: str | Path, config: Config, out: str | Path) -> list[Path]:
    """Plot some of the clips ``folder/<speaker>/*.wav`` that have F0 to ``out/<speaker>_<clip>.png``.

    Returns the paths of the pictures. A clip that cannot be read is logged and left out.
    """
    clips = [clip for speaker in find_clips(folder).values() for clip in speaker if ClipFiles(clip).f0.exists()]
    pictures = []
    for clip in evenly_spaced(clips, MAX_PICTURES):
        try:
            pictures.append(draw(clip, config, Path(out)))
        except UserError as error:
            log.warning("not drawn: %s", error)
    return pictures


def evenly_spaced(items: Sequence[Path], count: int) -> list[Path]:
    """Return at most ``count`` of the items, evenly spaced, starting with the first."""
    return [items[i * len(items) // min(count, len(items))] for i in range(min(count, len(items)))]


def draw(clip: Path, config: Config, out: Path) -> Path:
    """Draw one picture: a clip's spectrogram and F0, with a thin line where F0 is interpolated.

    Raises UserError if the clip or its F0 cannot be read.
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
    """Return the levels ``(F, T)`` in dB below the loudest point, and the frequencies ``(F,)`` in Hz."""
    padded = np.pad(audio, (0, max(WINDOW - len(audio), 0)))
    spec = linear_spectrogram(torch.from_numpy(padded)[None], WINDOW, hop, WINDOW)[0]
    frequencies = np.arange(len(spec)) * rate / WINDOW
    drawn = (frequencies >= LOWEST) & (frequencies <= HIGHEST)
    levels = 20 * np.log10(spec.numpy()[drawn])
    return levels.clip(min=levels.max() - RANGE) - levels.max(), frequencies[drawn]
