"""Content units of a stream of sound."""

from __future__ import annotations

import torch
from torch import Tensor

from live.history import History
from modules.audio.files import sinc_resample
from modules.console import UserError
from vencoder.encoder import HOP_LENGTH, SAMPLING_RATE, WINDOW_LENGTH, SpeechEncoder

CONTEXT = 2.0  # seconds before a block that the encoder hears with it
RESAMPLING_REACH = 8  # samples at 16 kHz; the filter's reach to each side is 6


class UnitStream:
    """Units every 20 ms from the stream's begin, and their resampling to the model's frames.

    The encoder computes a window of constant length that ends with the sound: ``frames``, or what it would pad with
    silence. Units of final frames do not change any more; those after them are provisional, since the sound after them
    is missing.

    Args:
        encoder: the speech encoder.
        rate, hop_length: of the model.
        mode: how units are resampled to frames, as in ``stretch_units``.
        frames: frames of the window, the most that ``at`` gives.
        device: device of the result.

    Raises UserError if units do not begin on whole samples at the model's rate.
    """

    def __init__(
        self, encoder: SpeechEncoder, rate: int, hop_length: int, mode: str, frames: int, device: torch.device
    ):
        spacing, rest = divmod(rate * HOP_LENGTH, SAMPLING_RATE)
        if rest:
            raise UserError(f"a model of {rate} Hz cannot be used live; its rate must be a multiple of 50 Hz")
        self.encoder, self.rate, self.hop_length, self.spacing, self.mode = encoder, rate, hop_length, spacing, mode
        self.window = max(frames * hop_length // spacing + 1, encoder.padded_to)  # units
        self.samples = (self.window - 1) * HOP_LENGTH + WINDOW_LENGTH - 2 * encoder.padding  # of the window, at 16 kHz
        reach = self.samples + RESAMPLING_REACH - self.window * HOP_LENGTH
        self.reach = -(-reach * rate // SAMPLING_RATE)  # samples after the last unit's end
        self.final = 0  # unit before which all are final
        self._units = History(encoder.ssl_dim, self.window + 4, device)

    @property
    def reads(self) -> int:
        """How many of the newest samples ``update`` reads."""
        return (self.window + 1) * self.spacing + max(0, self.reach)

    def update(self, sound: History, final_frames: int) -> None:
        """Encode the newest sound; afterwards the frames before ``final_frames`` are final."""
        last = (sound.end - self.reach) // self.spacing  # unit after the last one
        first = last - self.window
        audio = sound.view(first * self.spacing, last * self.spacing + self.reach)[0]
        units = self.encoder(sinc_resample(audio, self.rate, SAMPLING_RATE)[: self.samples])[0]
        kept = max(self.final, first)
        self._units.write(kept, units[:, kept - first :])
        self.final = max(self.final, int(self._taps(final_frames - 1, final_frames)[1]) + 1)

    def at(self, first: int, last: int) -> Tensor:
        """Return the units of the frames ``first`` to ``last``: (C, last - first)."""
        left, right, share = self._taps(first, last)
        newest = self._units.end - 1
        oldest = self._units.end - self._units.length
        units = self._units.view(oldest, newest + 1)
        left, right = (
            (tap.clamp(oldest, newest) - oldest).to(units.device, non_blocking=True) for tap in (left, right)
        )
        if not share.any():
            return units.index_select(1, left)
        return torch.lerp(units.index_select(1, left), units.index_select(1, right), share.to(units.device))

    def _taps(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each frame the two units that it blends, and the share of the second.

        This is ``stretch_units`` for an endless stream, whose ratio of units to frames is exact.
        """
        start = torch.arange(first, last) * self.hop_length  # samples
        middle = start + self.hop_length // 2
        if self.mode == "linear":
            offset = middle - self.spacing // 2
            left = offset.div(self.spacing, rounding_mode="floor")
            return left, left + 1, (offset - left * self.spacing) / self.spacing
        left = (middle if self.mode == "nearest-exact" else start).div(self.spacing, rounding_mode="floor")
        if self.mode != "area":  # left, nearest, nearest-exact
            return left, left, torch.zeros(len(left))
        right = (start + self.hop_length - 1).div(self.spacing, rounding_mode="floor")
        return left, right, (right > left) * 0.5
