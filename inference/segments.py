"""How a slice of a song is cut into pieces, and how their conversions become one again.

Positions are samples. A song may have another rate than the model: it is cut at its own rate, the joints are made at
the model's, and ``at_rate`` is the one rule between the two, so nothing drifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from modules.audio.files import to_pcm16

# Memory grows with a piece's length, most of all in the speech encoder (about 1 GiB for a minute). A phrase that goes
# on for longer without any silence is rare, and is cut even if nobody asked for it.
LONGEST_PIECE = 60.0  # seconds
UNASKED_CROSS_FADE = 1.0  # seconds
FADE_SECONDS = 0.03  # to each side of a joint, where one piece fades out and the next fades in
SHORTEST_REST = 0.02  # seconds; less at a slice's end is no piece of its own


@dataclass(frozen=True)
class Piece:
    """Samples ``start`` to ``end`` of a slice; the first ``lead_in`` of them belong to the piece before as well."""

    start: int
    end: int
    lead_in: int = 0


@dataclass(frozen=True)
class Fade:
    """A joint: the samples that a piece has in common with the one before, and the share of them that is blended.

    A linear blend, as published, lowers the level of two renderings with unrelated phase and noise by up to 3 dB. With
    ``keeps_level`` it is divided by the level that the correlation of the two predicts.
    """

    overlap: int
    retain: float = 1.0
    keeps_level: bool = False


def split(length: int, size: int, lead_in: int = 0) -> list[Piece]:
    """Cut ``length`` samples every ``size``; from the second piece on each starts ``lead_in`` earlier where it can."""
    leads = ((start, lead_in if lead_in <= start else 0) for start in range(0, length, size))
    return [Piece(start - lead, min(start + size, length), lead) for start, lead in leads]


def plan_pieces(length: int, rate: int, clip_seconds: float = 0, cross_fade_seconds: float = 0) -> list[Piece]:
    """The pieces of a slice of ``length`` samples: forced cuts every ``clip_seconds``, the whole slice when that is 0.

    Without forced cuts a slice above LONGEST_PIECE is cut into equal pieces all the same. A rest below SHORTEST_REST
    goes with the piece before it.
    """
    size, lead_in = int(clip_seconds * rate), int(cross_fade_seconds * rate)
    if size == 0 and length > LONGEST_PIECE * rate:
        size = math.ceil(length / math.ceil(length / (LONGEST_PIECE * rate)))
        lead_in = lead_in or int(UNASKED_CROSS_FADE * rate)
    pieces = split(length, size, lead_in) if size else [Piece(0, length)]
    rest = length - pieces[-1].start - pieces[-1].lead_in
    if len(pieces) > 1 and rest < SHORTEST_REST * rate <= size:
        pieces[-2:] = [replace(pieces[-2], end=length)]
    return pieces


def at_rate(position: int, from_rate: int, to_rate: int) -> int:
    """Where a sample position of one rate lies at another, rounded up; exact for positions of any size."""
    return -(-position * to_rate // from_rate)


def through_pcm16(audio: np.ndarray) -> np.ndarray:
    """The float32 values that audio (L,) has after being written as 16-bit samples and read back.

    The published program hands every piece to its model in such a file.
    """
    return to_pcm16(audio).astype(np.float32) / 32768


def cross_fade(before: np.ndarray, after: np.ndarray, fade: Fade) -> np.ndarray:
    """Go from one rendering of the same (X,) samples to another.

    The blend covers the share ``fade.retain`` of them, in the middle; before it stands ``before``, behind it ``after``.
    """
    blend = int(len(after) * fade.retain)
    left = (len(after) - blend) // 2
    ramp = np.linspace(0, 1, blend, dtype=np.float32)
    middle = slice(left, left + blend)
    mixed = before[middle] * (1 - ramp) + after[middle] * ramp
    if fade.keeps_level:
        norms = np.linalg.norm(before[middle]) * np.linalg.norm(after[middle])
        correlation = max(0.0, float(before[middle] @ after[middle] / norms)) if norms else 1.0  # silence: linear
        mixed /= np.sqrt((1 - ramp) ** 2 + ramp**2 + 2 * correlation * ramp * (1 - ramp))
    return np.concatenate([before[:left], mixed, after[left + blend :]], dtype=np.float32)


def join(audios: Iterable[np.ndarray], fades: Sequence[Fade]) -> Iterator[np.ndarray]:
    """Yield the audio of consecutive pieces as one signal, as far as it is settled after each.

    ``fades[k]`` joins piece k to the one before; it overlaps at most that one's length, and the first overlaps nothing.
    The sum of what is yielded is the sum of the pieces' lengths less the overlaps.
    """
    tail = np.zeros(0, dtype=np.float32)
    for audio, fade, coming in zip(audios, fades, [*fades[1:], Fade(0)], strict=True):
        audio = np.concatenate([cross_fade(tail, audio[: fade.overlap], fade), audio[fade.overlap :]])
        settled = len(audio) - coming.overlap
        tail = audio[settled:]
        yield audio[:settled]
