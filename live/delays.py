"""The parts of the delay between microphone and loudspeaker."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modules.console import UserError, option

# Time beyond the 99th percentile of the compute time that is kept in reserve: a fade, and the system's jitter.
MARGIN = 0.02  # seconds


@dataclass(frozen=True)
class Delays:
    """Four delays in seconds, whose sum is the delay of the sound.

    Attributes:
        buffering: a block and a buffer of the device, which must be full, and resampling to the device's rate.
        look_ahead: sound that the networks need after what they convert.
        compute: reserve for computing a block, filled with silence at the start.
        device: of the driver and hardware, input and output, as the driver reports it.
    """

    buffering: float
    look_ahead: float
    compute: float
    device: float = 0.0

    @property
    def total(self) -> float:
        """The delay of the sound in seconds."""
        return self.buffering + self.look_ahead + self.compute + self.device

    def rows(self) -> list[tuple[str, float]]:
        """Return the name and the seconds of each part and of the sum, for a table."""
        names = ("buffering", "look-ahead", "compute", "device", "sum")
        return list(zip(names, (self.buffering, self.look_ahead, self.compute, self.device, self.total), strict=True))


def reserve_for(fixed_delay: float, others: Delays, needed: float) -> float:
    """Return the compute reserve in seconds with which the total is ``fixed_delay`` seconds.

    ``others`` are the other parts. Raises UserError if the reserve would be less than the ``needed`` one.
    """
    reserve = fixed_delay - (others.total - others.compute)
    if reserve < needed:
        least = math.ceil(1000 * (fixed_delay + needed - reserve) + 0.5) / 1000
        raise UserError(
            f"a delay of {fixed_delay:.3f} s is too short for this model on this computer; give "
            f"{option('fixed_delay', f'{least:.3f}')} or more, or a shorter {option('block')}"
        )
    return reserve
