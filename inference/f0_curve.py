"""F0 of a song as a table that people can edit: ``time`` in seconds, ``f0`` in Hz, and ``voiced`` (1 or 0)."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modules.atomic_file import write_text
from modules.console import UserError, option
from modules.f0.contour import interpolate_unvoiced

COLUMNS = ("time", "f0", "voiced")
LARGEST_FILE = 64 << 20  # bytes; a table of three hours with a row every 11.6 ms has a third of it
GAP = 0.1  # seconds without a frame, between pieces, which are unvoiced
MARGIN = 4  # frames beside a piece's sound in which predictors may find F0
HIGHEST_F0 = 5000.0  # Hz; a greater value is not a voice


@dataclass(frozen=True, eq=False)
class F0Curve:
    """F0 in song time. Between two points it is linear in log F0, and a point's voicing lasts until the next one.

    Attributes:
        times: seconds, increasing (P,).
        f0: Hz (P,), interpolated across unvoiced points.
        voiced: 1 where voiced (P,).
    """

    times: np.ndarray
    f0: np.ndarray
    voiced: np.ndarray

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return F0 in Hz and voicing at ``times`` in seconds, float32 (T,) each; the ends extend the first and last
        point."""
        f0 = np.exp(np.interp(times, self.times, np.log(self.f0)))
        before = np.searchsorted(self.times, times + 1e-6, side="right") - 1  # files hold times in microseconds
        return f0.astype(np.float32), self.voiced[before.clip(min=0)].astype(np.float32)

    def of_sound(self, wav: np.ndarray, start: float, rate: int, hop_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return F0 and voicing of each frame of ``wav`` (L,), which begins at ``start`` seconds of the song.

        Frames of digital silence, such as a piece's padding, are unvoiced, except MARGIN of them beside the sound.
        """
        frames = len(wav) // hop_length
        f0, voiced = self.at(start + np.arange(frames) * hop_length / rate)
        sounding = wav[: frames * hop_length].reshape(frames, hop_length).any(axis=1)
        near = np.convolve(sounding, np.ones(2 * MARGIN + 1))[MARGIN : MARGIN + frames] > 0
        return interpolate_unvoiced(np.where((voiced > 0) & near, f0, 0))


class F0Log:
    """Collects the F0 of a song's pieces, to be written as a table."""

    def __init__(self):
        self._rows: list[np.ndarray] = []
        self._last = -np.inf  # time of the last frame before the last piece

    def add(self, times: np.ndarray, f0: np.ndarray, voiced: np.ndarray, start: float) -> None:
        """Add a piece that begins at ``start``: frames at ``times``, all in seconds, (T,) each.

        Frames from ``start`` on replace those of the pieces before; frames before it do not.
        """
        if self._rows:
            kept = self._rows[-1] = self._rows[-1][:, self._rows[-1][0] < start]
            if kept.size:
                self._last = kept[0, -1]
            new = times > self._last
            times, f0, voiced = times[new], f0[new], voiced[new]
        self._rows.append(np.stack([times, f0, voiced]))

    def write(self, path: str | Path) -> None:
        """Write the table. Raises OSError as every writer."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        before = -np.inf
        for time, hertz, on in np.concatenate([np.zeros((3, 0)), *self._rows], axis=1).T:
            if GAP < time - before < np.inf:  # the voicing of a row lasts until the next one
                table.writerow((f"{before + GAP / 2:.6f}", "0", 0))
            table.writerow((f"{time:.6f}", f"{hertz:.4f}", int(on)))
            before = time
        write_text(path, text.getvalue())


def read_f0_curve(path: str | Path, setting: str = "f0_in") -> F0Curve:
    """Read a table with the columns ``time``, ``f0`` and, optionally, ``voiced``; rows with an F0 of 0 are unvoiced.

    ``setting`` names the path in messages. Raises UserError naming the line if the file is missing, no such table, or
    its times do not increase.
    """
    what = f"{path} ({option(setting)})"
    try:
        if Path(path).stat().st_size > LARGEST_FILE:
            raise UserError(f"{what} has more than {LARGEST_FILE >> 20} MiB; it is no table of F0")
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.DictReader(lines, skipinitialspace=True)
    times, hertz, voicing = [], [], []
    for row in reader:
        where = f"{what}, line {reader.line_num}"
        try:
            time, f0 = float(row["time"]), float(row["f0"])
            voiced = float(row["voiced"]) if row.get("voiced") not in (None, "") else 1.0
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{where}: it needs numbers below the header time,f0,voiced") from None
        if not np.isfinite(time) or (times and time <= times[-1]):
            raise UserError(f"{where}: its time must be a number of seconds after the row before")
        if not 0 <= f0 <= HIGHEST_F0 or voiced not in (0, 1):
            raise UserError(f"{where}: f0 must be from 0 to {HIGHEST_F0:g} Hz and voiced 0 or 1")
        times.append(time)
        hertz.append(f0)
        voicing.append(voiced)
    if not any(hertz):
        raise UserError(f"{what} holds no F0; it needs the columns time, f0 and voiced with at least one row")
    points, f0 = np.array(times), np.array(hertz)
    known = np.flatnonzero(f0)
    filled = np.exp(np.interp(points, points[known], np.log(f0[known])))
    return F0Curve(points, filled, np.array(voicing) * (f0 > 0))
