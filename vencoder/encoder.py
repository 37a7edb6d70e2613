"""What every speech encoder is: 16 kHz sound in, one column of features every 20 ms out."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.console import UserError

SAMPLING_RATE = 16000  # Hz
HOP_LENGTH = 320  # samples between the starts of two frames: 20 ms
WINDOW_LENGTH = 400  # samples that one frame sees at least: 25 ms


def frame_count(samples: int) -> int:
    """How many frames an encoder gives for ``samples`` of 16 kHz sound: only whole windows, and at least one."""
    return max(samples - WINDOW_LENGTH, 0) // HOP_LENGTH + 1


class SpeechEncoder:
    """Base of the encoders; a subclass implements ``features``.

    Attributes:
        key: its name in the table, as ``config.json`` has it.
        ssl_dim: C, the number of features.
    """

    sampling_rate = SAMPLING_RATE
    hop_length = HOP_LENGTH

    def __init__(self, key: str, ssl_dim: int, device: str | torch.device = "cpu"):
        self.key = key
        self.ssl_dim = ssl_dim
        self.device = torch.device(device)

    @torch.inference_mode()
    def __call__(self, audio: Tensor) -> Tensor:
        """Encode mono sound: (L,) at 16 kHz in [-1, 1] -> (1, C, N) float32 on the encoder's device.

        N is ``frame_count(L)``. Sound shorter than one window is continued with silence to one frame.

        Raises:
            UserError: when the sound is empty or not finite.
            ValueError: when it is not one-dimensional.
        """
        if audio.dim() != 1:
            raise ValueError(f"a speech encoder takes mono sound of shape (samples,), not {tuple(audio.shape)}")
        if len(audio) == 0:
            raise UserError("there is no sound to encode: it has no samples")
        audio = audio.to(self.device, torch.float32)
        if not audio.isfinite().all():
            raise UserError("the sound to encode holds values that are not finite")
        audio = torch.nn.functional.pad(audio, (0, max(WINDOW_LENGTH - len(audio), 0)))
        return self.features(audio)

    def features(self, audio: Tensor) -> Tensor:
        """(L,) with L >= WINDOW_LENGTH -> (1, C, frame_count(L))."""
        raise NotImplementedError
