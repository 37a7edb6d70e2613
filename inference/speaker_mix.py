"""A voice that changes over the song: checks the user's map of speaker mixes and computes weights for every frame.

The map has a track for each speaker. A track is a list of segments ``[start, end, weight at start, weight at end]``,
whose times are shares of the song::

    {0: [[0, 0.5, 1, 0], [0.5, 1, 0, 0]],      speaker 0 leaves in the first half,
     1: [[0, 0.5, 0, 1], [0.5, 1, 1, 1]]}      while speaker 1 enters

Time is counted in frames, as published: the frames of each converted piece with its padding and of each silence, and
one more for each slice, for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inference.voices import Voices
from modules.console import UserError, short_repr

TOLERANCE = 1e-6  # two times are equal within it


class SpeakerMix:
    """The weights of a model's speakers over a song.

    Args:
        mix_map: speaker (id or name) -> segments, see above.
        voices: of the model; each speaker must have a track.

    Raises UserError naming the track and the segment if a rule is broken: segments are four finite numbers, weights are
    not negative, the first segment starts at 0, each next one at the end of the one before, and the last ends at 1.
    """

    def __init__(self, mix_map: Mapping[int | str, Sequence[Sequence[float]]], voices: Voices):
        if not isinstance(mix_map, Mapping):
            found = short_repr(mix_map)
            raise UserError(f"the speaker mix is {found}; spk_mix_map must map speakers to lists of segments")
        self.tracks: dict[int, list[list[float]]] = {}
        for speaker, segments in mix_map.items():
            row = voices.id_of(speaker)
            if row in self.tracks:
                raise UserError(f"the speaker mix has two tracks of '{voices.name_of(row)}'; leave one out")
            self.tracks[row] = _checked(segments, f"the speaker mix, track {speaker!r}")
        if missing := [name for name, row in voices.spk2id.items() if row not in self.tracks]:
            row = voices.spk2id[missing[0]]
            raise UserError(
                f"the speaker mix has no track of {', '.join(missing)}; every speaker of the model needs one; "
                f"a silent one has {row}: [[0, 1, 0, 0]]"
            )

    def weights(self, frames: int) -> Tensor:
        """Compute the share of each speaker in each frame: (frames, S), where S is the highest id + 1; rows sum to 1.

        If all weights of a frame are zero, all speakers have the same share.
        """
        weights = torch.zeros(frames, max(self.tracks) + 1, dtype=torch.float64)
        for row, segments in self.tracks.items():
            first = 0
            for _, end, from_weight, to_weight in segments:
                last = int(frames * end)
                steps = torch.arange(last - first, dtype=torch.float64)
                weights[first:last, row] = from_weight + (to_weight - from_weight) * steps / max(last - first, 1)
                first = last
        present = torch.zeros_like(weights[0])
        present[list(self.tracks)] = 1 / len(self.tracks)
        total = weights.sum(dim=1, keepdim=True)
        return torch.where(total > 0, weights / total.clamp(min=1e-30), present).float()

    def piece_weights(self, frames: Sequence[Sequence[int]]) -> Iterator[list[Tensor]]:
        """Yield for each slice the weights (T, S) of its pieces; ``frames`` gives their T, slice by slice."""
        weights = self.weights(sum(map(sum, frames)) + len(frames))
        first = 0
        for pieces in frames:
            ends = [first + sum(pieces[: n + 1]) for n in range(len(pieces))]
            yield [weights[end - piece : end] for piece, end in zip(pieces, ends, strict=True)]
            first = ends[-1] if ends else first


def _checked(segments: Any, track: str) -> list[list[float]]:
    """Check the segments of one track; returns them with times exactly contiguous from 0 to 1."""
    if isinstance(segments, str) or not isinstance(segments, Sequence) or not segments:
        raise UserError(f"{track} is {short_repr(segments)}; it must be a list of segments [start, end, from, to]")
    checked, reached = [], 0.0
    for number, segment in enumerate(segments, 1):
        name = f"{track}, segment {number}"
        start, end, *weights = _numbers(segment, name)
        if abs(start - reached) > TOLERANCE:
            before = "the song begins at 0" if number == 1 else f"the one before ends at {reached:g}"
            raise UserError(f"{name} starts at {start:g}, but {before}")
        if end <= start or end > 1 + TOLERANCE:
            raise UserError(f"{name} goes from {start:g} to {end:g}; it must end after its start and not after 1")
        if min(weights) < 0:
            raise UserError(f"{name} has the weight {min(weights):g}; weights must not be below 0")
        checked.append([reached, end, *weights])
        reached = end
    if abs(reached - 1) > TOLERANCE:
        raise UserError(f"{track} ends at {reached:g}; its last segment must end at 1, the end of the song")
    checked[-1][1] = 1.0
    return checked


def _numbers(segment: Any, name: str) -> list[float]:
    try:
        numbers = [float(number) for number in segment]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise UserError(f"{name} is {short_repr(segment)}; it must be four numbers [start, end, from, to]")
    return numbers
