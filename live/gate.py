"""A soft gate: silence in gives silence out."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

HOLD = 0.25  # seconds that the gate stays open after the last loud frame
RAMP = 4  # frames in which it opens, all before the first loud frame, or closes


class Gate:
    """Gains from the levels of frames; a function of absolute frames alone, so blocks of any length give the same.

    Args:
        frame_seconds: length of a frame.
    """

    ahead = RAMP + 1  # frames of level that are needed after the last gain's frame

    def __init__(self, frame_seconds: float):
        self.hold = round(HOLD / frame_seconds)
        self.behind = self.hold + RAMP - 1  # frames of level that are needed before the first gain's frame

    def gains(self, levels: Tensor, threshold: float) -> Tensor:
        """Return the gains at the begins of n frames and at the last one's end, (n + 1,), in [0, 1].

        ``levels`` (behind + n + ahead,) are RMS values of the frames with their neighbours; ``threshold`` is in dB.
        """
        loud = (levels > 10 ** (threshold / 20)).float()[None, None]
        span = self.hold + RAMP + 1
        is_open = functional.max_pool1d(loud, span, stride=1)  # a frame is loud from hold before to RAMP after
        return functional.avg_pool1d(is_open, RAMP, stride=1)[0, 0]
