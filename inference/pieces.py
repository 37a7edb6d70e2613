"""The pieces of a song: where they are cut, where they lie at the model's rate, and how their conversions are joined.

Positions are samples. Pieces are cut at the song's rate and joined at the model's. ``at_rate`` converts positions in
the whole song, so rounding errors do not accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference.conversion import Conversion
from inference.song import Song
from modules.audio.files import to_pcm16
from modules.audio.slicer import Chunk

# A phrase that is longer than ``longest`` is cut even if no cuts were requested: at the quietest place among its last
# quarter, where a joint is least audible.
LONG_PIECE_CROSS_FADE = 1.0  # seconds
FADE_SECONDS = 0.03  # on each side of a joint, where one piece fades out and the next fades in
SHORTEST_REST = 0.02  # seconds; a shorter rest of a slice is not a piece of its own
SHORTEST_PIECE = 0.1  # seconds; encoders and predictors need a few frames, so a shorter piece is padded


# -- cuts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """Samples ``start`` to ``end`` of a slice; the first ``lead_in`` of them belong to the previous span as well."""

    start: int
    end: int
    lead_in: int = 0


def split(length: int, size: int, lead_in: int = 0) -> list[Span]:
    """Cut ``length`` samples every ``size``; each span after the first starts ``lead_in`` earlier, if it can."""
    leads = ((start, lead_in if lead_in <= start else 0) for start in range(0, length, size))
    return [Span(start - lead, min(start + size, length), lead) for start, lead in leads]


def plan_spans(
    length: int,
    rate: int,
    clip_seconds: float = 0,
    cross_fade_seconds: float = 0,
    longest: float = math.inf,
    quietest: Callable[[int, int], int] = max,
) -> list[Span]:
    """Cut a slice of ``length`` samples every ``clip_seconds``; 0 leaves it whole.

    Without forced cuts a slice of more than ``longest`` seconds is cut at the samples that ``quietest`` returns, the
    quietest ones between two. A rest shorter than SHORTEST_REST joins the span before it.
    """
    size, lead_in = int(clip_seconds * rate), int(cross_fade_seconds * rate)
    if size == 0:
        return _spans_of_phrase(
            length, int(min(longest * rate, length)), lead_in or int(LONG_PIECE_CROSS_FADE * rate), quietest
        )
    spans = split(length, size, lead_in)
    rest = length - spans[-1].start - spans[-1].lead_in
    if len(spans) > 1 and rest < SHORTEST_REST * rate <= size:
        spans[-2:] = [replace(spans[-2], end=length)]
    return spans


def _spans_of_phrase(length: int, longest: int, lead_in: int, quietest: Callable[[int, int], int]) -> list[Span]:
    """Cut a phrase into spans of at most ``longest`` samples beside their lead-in."""
    spans, start = [], 0
    while start < length:
        end = length
        if (rest := length - start) > longest:
            size = min(longest, math.ceil(rest / 2))  # no short rest
            end = quietest(start + size * 3 // 4, start + size)
        lead = lead_in if 0 < lead_in <= start else 0
        spans.append(Span(start - lead, end, lead))
        start = end
    return spans


# -- pieces -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fade:
    """A joint: the samples that a piece shares with the previous one, and the share of them that is blended.

    The published linear blend lowers the level of two renderings with unrelated phase and noise by up to 3 dB. With
    ``keeps_level`` it is divided by the level that the correlation of the two predicts.
    """

    overlap: int
    retain: float = 1.0
    keeps_level: bool = False


@dataclass(frozen=True)
class Piece:
    """A span of a slice, and where its conversion lies.

    Attributes, at the song's rate:
        start, end: samples of the slice.
        padding: samples added on each side.
        before, after: the samples of the padding nearest to the piece that are the song's own; the others are zeros.

    Attributes, at the model's rate:
        origin: the song's sample at which the first frame begins; negative within the padding before the song.
        offset: samples from ``origin`` to the piece.
        frames: number of frames to convert.
        length: samples of the piece.
        lead, trail: samples before and behind it that fade into its neighbours.
        overlap: samples shared with the previous piece, the lead included.
        retain: share of the overlap that is blended.
    """

    start: int
    end: int
    padding: int
    origin: int
    offset: int
    frames: int
    length: int
    overlap: int
    retain: float = 1.0
    before: int = 0
    after: int = 0
    lead: int = 0
    trail: int = 0

    @property
    def fade(self) -> Fade:
        """Its joint to the previous piece."""
        return Fade(self.overlap, self.retain, keeps_level=self.lead > 0)

    @property
    def faded_length(self) -> int:
        """Samples of the piece with its lead and trail, at the model's rate."""
        return self.lead + self.length + self.trail


@dataclass(frozen=True)
class SliceLayout:
    """A slice of the song, from its sample ``start`` on: one silent piece, or pieces to convert."""

    is_silence: bool
    start: int
    pieces: list[Piece]


def at_rate(position: int, from_rate: int, to_rate: int) -> int:
    """Convert a sample position from one rate to another, rounded up; exact for positions of any size."""
    return -(-position * to_rate // from_rate)


def lay_out(
    song: Song, conversion: Conversion, rate: int, hop_length: int, longest: float = math.inf
) -> list[SliceLayout]:
    """Lay out the slices of a song, in order and as published, for a model of this rate and hop length.

    Phrases of more than ``longest`` seconds are cut.
    """
    return [_lay_out(chunk, song, conversion, rate, hop_length, longest) for chunk in song.chunks(conversion.slice_db)]


def _lay_out(
    chunk: Chunk, song: Song, conversion: Conversion, rate: int, hop_length: int, longest: float
) -> SliceLayout:
    song_rate = song.sampling_rate

    def quietest(first: int, last: int) -> int:
        return song.quietest(chunk.start + first, chunk.start + last) - chunk.start

    def length(first: int, last: int) -> int:
        """Return the length of these samples of the slice at the model's rate, as the difference of song positions."""
        return at_rate(chunk.start + last, song_rate, rate) - at_rate(chunk.start + first, song_rate, rate)

    samples = chunk.end - chunk.start
    if chunk.is_silence:
        origin, whole = at_rate(chunk.start, song_rate, rate), length(0, samples)
        piece = Piece(0, samples, 0, origin, offset=0, frames=whole // hop_length, length=whole, overlap=0)
        return SliceLayout(True, chunk.start, [piece])
    pieces = []
    cuts = conversion.clip_seconds, conversion.lg_num
    for span in plan_spans(samples, song_rate, *cuts, longest, quietest):
        size = span.end - span.start
        padding = int(max(conversion.pad_seconds, (SHORTEST_PIECE - size / song_rate) / 2) * song_rate)
        piece = Piece(
            span.start, span.end, padding, origin=0, offset=0, frames=0, length=length(span.start, span.end),
            overlap=length(span.start, span.start + span.lead_in), retain=conversion.lgr_num,
        )  # fmt: skip
        pieces.append(_with_frames(piece, chunk.start, song_rate, rate, hop_length))
    return SliceLayout(False, chunk.start, pieces)


def _with_frames(piece: Piece, slice_start: int, song_rate: int, rate: int, hop_length: int) -> Piece:
    """Set origin, offset and frames: the frames of the padded piece, or more if its length and trail need them.

    The first frame begins at the sample of the converted song that is nearest to the start of the padding.
    """
    begin = slice_start + piece.start
    origin = round((begin - piece.padding) * rate / song_rate)
    offset = at_rate(begin, song_rate, rate) - origin
    padded = at_rate(piece.end - piece.start + 2 * piece.padding, song_rate, rate)
    needed = offset + piece.length + piece.trail
    frames = max(padded // hop_length, math.ceil(needed / hop_length))
    return replace(piece, origin=origin, offset=offset, frames=frames)


def with_fades(layouts: list[SliceLayout], song_rate: int, rate: int, hop_length: int) -> list[SliceLayout]:
    """Add a fade to every joint whose cross-fade is shorter, joints with silence included.

    Pieces are converted with the song's own sound beyond the joint: noise in silence, or the next phrase. With the
    usual padding it replaces zeros, so the number of frames stays the published one.
    """
    pieces = [piece for layout in layouts for piece in layout.pieces]
    for index in range(len(pieces) - 1):
        left, right = pieces[index : index + 2]
        wanted, common = int(FADE_SECONDS * rate), right.overlap
        if common >= 2 * wanted:
            pieces[index + 1] = replace(right, retain=max(right.retain, 2 * wanted / common))
            continue
        fade = min(wanted, (left.length - 2 * common) // 2, (right.length - 2 * common) // 2)
        if fade <= 0:
            continue
        context = math.ceil(fade * song_rate / rate)
        pieces[index] = replace(left, after=context, trail=fade)
        pieces[index + 1] = replace(right, before=context, lead=fade, overlap=common + 2 * fade, retain=1.0)
    faded = iter(pieces)
    return [
        replace(layout, pieces=[_extended(layout, next(faded), song_rate, rate, hop_length) for _ in layout.pieces])
        for layout in layouts
    ]


def _extended(layout: SliceLayout, piece: Piece, song_rate: int, rate: int, hop_length: int) -> Piece:
    """Extend the padding of a piece to hold its fades."""
    if layout.is_silence:
        return piece
    piece = replace(piece, padding=max(piece.padding, piece.before, piece.after))
    return _with_frames(piece, layout.start, song_rate, rate, hop_length)


# -- joints -----------------------------------------------------------------------------------------------------------


def round_to_pcm16(audio: np.ndarray) -> np.ndarray:
    """Round audio (L,) to 16-bit samples, as float32: the published program passes every piece through such a file."""
    return to_pcm16(audio).astype(np.float32) / 32768


def cross_fade(before: np.ndarray, after: np.ndarray, fade: Fade) -> np.ndarray:
    """Fade from one rendering of the same (X,) samples to another.

    The blend covers the middle ``fade.retain`` of them. The samples left of it are those of ``before``, the samples
    right of it those of ``after``.
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
    """Yield the audio of consecutive pieces as one signal, each time the samples that the next piece cannot change.

    ``fades[k]`` joins piece k to the previous one and overlaps at most that one's length; the first overlaps nothing.
    The total length is the sum of the pieces' lengths less the overlaps.
    """
    tail = np.zeros(0, dtype=np.float32)
    for audio, fade, coming in zip(audios, fades, [*fades[1:], Fade(0)], strict=True):
        audio = np.concatenate([cross_fade(tail, audio[: fade.overlap], fade), audio[fade.overlap :]])
        settled = len(audio) - coming.overlap
        tail = audio[settled:]
        yield audio[:settled]
