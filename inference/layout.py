"""Where the pieces of a song are, at its own rate and at the model's, before any of it is converted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inference.conversion import Conversion
from inference.segments import FADE_SECONDS, Fade, at_rate, plan_pieces
from inference.song import Song
from modules.audio.slicer import Chunk

SHORTEST_PIECE = 0.1  # seconds; encoders and predictors need a few frames, so less is padded up to this


@dataclass(frozen=True)
class Place:
    """A piece: samples ``start`` to ``end`` of a slice of the song.

    At the song's rate ``padding`` samples come before and behind it: the nearest ``before`` and ``after`` are the
    song's own, the others zeros. The model makes ``frames`` of that. At the model's rate the piece begins ``offset``
    samples behind the first frame and has ``length``; ``lead`` samples before it and ``trail`` behind it fade into the
    pieces beside it. Its first ``overlap`` samples, the lead among them, belong to the piece before as well; the share
    ``retain`` of them is blended.
    """

    start: int
    end: int
    padding: int
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
        """Its joint to the piece before."""
        return Fade(self.overlap, self.retain, keeps_level=self.lead > 0)


@dataclass(frozen=True)
class SliceLayout:
    """A slice: silence, which has one place, or pieces to convert. Its first sample in the song is ``start``."""

    is_silence: bool
    start: int
    places: list[Place]

    @property
    def frames(self) -> list[int]:
        """Of each piece."""
        return [place.frames for place in self.places]


def lay_out(song: Song, conversion: Conversion, rate: int, hop_length: int) -> list[SliceLayout]:
    """The slices of a song for a model of this rate and frame length, in their order, as published."""
    return [
        _lay_out(chunk, song.sampling_rate, conversion, rate, hop_length) for chunk in song.chunks(conversion.slice_db)
    ]


def _lay_out(chunk: Chunk, song_rate: int, conversion: Conversion, rate: int, hop_length: int) -> SliceLayout:
    def length(first: int, last: int) -> int:
        """Of these samples of the slice, at the model's rate; ends are placed in the whole song, so nothing drifts."""
        return at_rate(chunk.start + last, song_rate, rate) - at_rate(chunk.start + first, song_rate, rate)

    samples = chunk.end - chunk.start
    whole = length(0, samples)
    if chunk.is_silence:
        return SliceLayout(True, chunk.start, [Place(0, samples, 0, 0, whole // hop_length, whole, 0)])
    places = []
    for piece in plan_pieces(samples, song_rate, conversion.clip_seconds, conversion.lg_num):
        size = piece.end - piece.start
        pad = max(conversion.pad_seconds, (SHORTEST_PIECE - size / song_rate) / 2)
        padding = int(pad * song_rate)
        place = Place(
            piece.start, piece.end, padding, offset=0, frames=0, length=length(piece.start, piece.end),
            overlap=length(piece.start, piece.start + piece.lead_in), retain=conversion.lgr_num,
        )  # fmt: skip
        places.append(_with_frames(place, chunk.start, song_rate, rate, hop_length))
    return SliceLayout(False, chunk.start, places)


def _with_frames(place: Place, slice_start: int, song_rate: int, rate: int, hop_length: int) -> Place:
    """The place with its offset and frames, as many as the padded piece has, and all that it needs.

    The first frame begins at the sample of the converted song that is nearest to where the padded piece begins.
    """
    begin = slice_start + place.start
    first_frame = round((begin - place.padding) * rate / song_rate)
    offset = at_rate(begin, song_rate, rate) - first_frame
    padded = at_rate(place.end - place.start + 2 * place.padding, song_rate, rate)
    needed = offset + place.length + place.trail
    return replace(place, offset=offset, frames=max(padded // hop_length, math.ceil(needed / hop_length)))


def with_fades(slices: list[SliceLayout], song_rate: int, rate: int, hop_length: int) -> list[SliceLayout]:
    """The slices with a fade at every joint that has no cross-fade as long yet, at those with silence too.

    The pieces are converted with the song's own sound beyond the joint, which is silence's noise or the next phrase. In
    the usual padding that takes the place of zeros, so the number of frames stays the published one.
    """
    places = [place for part in slices for place in part.places]
    for index in range(len(places) - 1):
        left, right = places[index : index + 2]
        wanted, common = int(FADE_SECONDS * rate), right.overlap
        if common >= 2 * wanted:
            places[index + 1] = replace(right, retain=max(right.retain, 2 * wanted / common))
            continue
        fade = min(wanted, (left.length - 2 * common) // 2, (right.length - 2 * common) // 2)
        if fade <= 0:
            continue
        context = math.ceil(fade * song_rate / rate)
        places[index] = replace(left, after=context, trail=fade)
        places[index + 1] = replace(right, before=context, lead=fade, overlap=common + 2 * fade, retain=1.0)
    faded = iter(places)
    return [
        replace(part, places=[_extended(part, next(faded), song_rate, rate, hop_length) for _ in part.places])
        for part in slices
    ]


def _extended(part: SliceLayout, place: Place, song_rate: int, rate: int, hop_length: int) -> Place:
    """The place with room for its fades in the padding."""
    if part.is_silence:
        return place
    place = replace(place, padding=max(place.padding, place.before, place.after))
    return _with_frames(place, part.start, song_rate, rate, hop_length)
