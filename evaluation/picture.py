"""The picture of an evaluation: spectrograms with F0, and bars of the figures beside their floor and ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.assessment import TARGET, TITLES, Assessment, Column
from evaluation.case import RATE
from evaluation.metrics import METRICS
from evaluation.pitch import Contour
from evaluation.report import ORDER
from modules.atomic_file import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOP_LENGTH = 512
COLOURS = {"converted": "C0", "self": "C9", "shifted": "C1", "source": "C7", "target": "C2"}
BARS = ("similarity", "dnsmos", "cer", "per", "f0_correlation", "vuv_f1", "frame_line", "unvoiced_line", "mcd")
IN_A_ROW = 5
SECONDS = 12.0  # of sound in the spectrograms


def draw(path: Path, result: Assessment) -> None:
    """Write a PNG of the first clip's spectrograms, and of the figures with intervals and the other columns."""
    columns = {TITLES[key]: result.columns[key] for key in ORDER if key in result.columns}
    colours = [COLOURS[key] for key in ORDER if key in result.columns]
    _draw(path, result.examples, columns, colours)


def draw_comparison(path: Path, results: Mapping[str, Assessment]) -> None:
    """Write a PNG of several conversions of the same clips."""
    columns = {name: result.columns["converted"] for name, result in results.items()}
    examples, target = {}, None
    for name, result in results.items():
        examples |= {name if title == "converted" else title: one for title, one in result.examples.items()}
        target = result.columns.get(TARGET, target)
    examples = dict(sorted(examples.items(), key=lambda item: (item[0] in results, item[0] == "reference")))
    if target:
        columns[TITLES[TARGET]] = target
    _draw(path, examples, columns, [f"C{i % 10}" for i in range(len(columns))])


def _draw(path: Path, examples: Mapping, columns: Mapping[str, Column], colours: list[str]) -> None:
    from matplotlib.figure import Figure

    names = [name for name in BARS if any(column.mean(name) is not None for column in columns.values())]
    rows = -(-len(names) // IN_A_ROW)
    figure = Figure(figsize=(14, 3 * len(examples) + 3.2 * rows + 0.6), layout="constrained")
    heights = [3] * len(examples) + [3.2] * rows
    grid = figure.add_gridspec(len(heights), IN_A_ROW, height_ratios=heights)
    for i, (title, (audio, contour)) in enumerate(examples.items()):
        _draw_spectrogram(figure.add_subplot(grid[i, :]), title, audio, contour)
    for i, name in enumerate(names):
        _draw_bars(figure.add_subplot(grid[len(examples) + i // IN_A_ROW, i % IN_A_ROW]), name, columns, colours)
    handles = [figure.axes[-1].bar(0, 0, color=colour) for colour in colours] if names else []
    if handles:
        figure.legend(handles, list(columns), loc="outside lower center", ncols=min(len(columns), 5))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80)


def _draw_spectrogram(axes: Axes, title: str, audio: np.ndarray, contour: Contour) -> None:
    """Draw the mel spectrogram of (L,) samples at 44.1 kHz with its F0."""
    import librosa.display

    mel = librosa.feature.melspectrogram(
        y=np.asarray(audio[: round(SECONDS * RATE)], np.float32),
        sr=RATE, n_fft=2048, hop_length=HOP_LENGTH, n_mels=160, fmin=60,
    )  # fmt: skip
    librosa.display.specshow(
        librosa.power_to_db(mel, ref=np.max, top_db=80),
        sr=RATE, hop_length=HOP_LENGTH, x_axis="s", y_axis="mel", fmin=60, ax=axes, cmap="magma",
    )  # fmt: skip
    times = np.arange(len(contour.f0)) * HOP_LENGTH / RATE
    axes.plot(times, np.where(contour.voiced, contour.f0, np.nan), "c-", linewidth=1.5)
    axes.set_xlim(0, min(len(audio) / RATE, SECONDS))
    axes.set_title(title, fontsize=10)


def _draw_bars(axes: Axes, name: str, columns: Mapping[str, Column], colours: list[str]) -> None:
    """Draw the means of one figure with their intervals."""
    metric = METRICS[name]
    for place, (column, colour) in enumerate(zip(columns.values(), colours, strict=True)):
        mean, between = column.mean(name), column.interval(name)
        if mean is None:
            continue
        error = (
            None
            if between is None or not between.is_known
            else [[max(mean - between.low, 0)], [max(between.high - mean, 0)]]
        )
        axes.bar(place, mean, color=colour, yerr=error, capsize=3)
        axes.annotate(metric.text(mean), (place, mean), ha="center", va="bottom", fontsize=8)
    axes.set_xticks([])
    direction = {1: "more is better", -1: "less is better", 0: "0 is best"}[metric.better]
    axes.set_title(f"{metric.label.strip()}\n{direction}", fontsize=9)
