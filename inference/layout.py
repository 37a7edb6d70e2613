"""Where the pieces of a song lie, at its own rate and at the model's, before any of it is converted."""

from __future__ import annotations

from dataclasses import dataclass

from inference.conversion import Conversion
from inference.segments import at_rate, plan_pieces
from inference.song import Song
from modules.slicer import Chunk

SHORTEST_PIECE = 0.1  # seconds; encoders and predictors need a few frames, so less is padded up to this


@dataclass(frozen=True)
class Place:
    """Samples ``start`` to ``end`` of a slice, which are converted with ``padding`` zeros on both sides.

    ``frames`` is how many the model makes of that. At the model's rate the piece has ``length`` samples, of which the
    first ``overlap`` belong to the piece before as well, when ``cut`` have been taken off both ends.
    """

    start: int
    end: int
    padding: int
    cut: int
    frames: int
    length: int
    overlap: int


@dataclass(frozen=True)
class SliceLayout:
    """A slice of ``length`` samples at the model's rate; of silence, too, the one place tells how it counts."""

    is_silence: bool
    length: int
    places: list[Place]

    @property
    def frames(self) -> list[int]:
        """Of each piece."""
        return [place.frames for place in self.places]


def lay_out(song: Song, conversion: Conversion, rate: int, hop_length: int) -> list[SliceLayout]:
    """The slices of a song for a model of this rate and frame length, in their order."""
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
        return SliceLayout(True, whole, [Place(0, samples, 0, 0, whole // hop_length, whole, 0)])
    places = []
    for piece in plan_pieces(samples, song_rate, conversion.clip_seconds, conversion.lg_num):
        size = piece.end - piece.start
        pad = max(conversion.pad_seconds, (SHORTEST_PIECE - size / song_rate) / 2)
        padding = int(pad * song_rate)
        frames = at_rate(size + 2 * padding, song_rate, rate) // hop_length
        overlap = length(piece.start, piece.start + piece.lead_in)
        places.append(
            Place(piece.start, piece.end, padding, int(pad * rate), frames, length(piece.start, piece.end), overlap)
        )
    return SliceLayout(False, whole, places)
