"""Base class of the speech encoders: 16 kHz audio in, one column of features every 20 ms out."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.console import UserError, get_logger
from modules.device import autocast
from modules.windows import plan_windows

log = get_logger("encoder")

SAMPLING_RATE = 16000  # Hz
HOP_LENGTH = 320  # samples between the starts of two frames: 20 ms
WINDOW_LENGTH = 400  # samples; smallest window of a frame: 25 ms
CONTEXT = 3  # seconds on each side of a segment


def frame_count(samples: int, padding: int = 0) -> int:
    """Return the number of frames for ``samples`` of 16 kHz audio with ``padding`` more on each side.

    Only whole windows count, and at least one.
    """
    return max(samples + 2 * padding - WINDOW_LENGTH, 0) // HOP_LENGTH + 1


class SpeechEncoder:
    """Base of the encoders; a subclass implements ``features``.

    Args:
        key: its key in the table and in ``config.json``.
        ssl_dim: C, the number of features.
        device: device of the computation.
        half: compute in half precision (float16, on a CPU bfloat16), and again in float32 if the result is not finite.
            The result is always float32.
    """

    sampling_rate = SAMPLING_RATE
    padding = 0  # samples of padding at each end of the audio
    bounds_memory = False  # the encoder itself processes long audio in parts, or needs little memory
    padded_to = 0  # frames; shorter audio is padded with silence to as many, at the same cost

    def __init__(self, key: str, ssl_dim: int, device: str | torch.device = "cpu", half: bool = False):
        self.key = key
        self.ssl_dim = ssl_dim
        self.device = torch.device(device)
        self.half = half

    def frames(self, samples: int) -> int:
        """Return the number of frames N for audio of ``samples`` samples."""
        return frame_count(samples, self.padding)

    @torch.inference_mode()
    def __call__(self, audio: Tensor) -> Tensor:
        """Encode mono audio: (L,) at 16 kHz in [-1, 1] -> (1, C, N) float32 on the encoder's device.

        N is ``frames(L)``. Audio shorter than one window is padded with silence to one frame.

        Raises:
            UserError: when the sound is empty or not finite.
            ValueError: when it is not one-dimensional.
        """
        audio = self._checked(audio)
        features = self._half_features(audio)
        return (self.features(audio) if features is None else features)[None]

    def encode_in_segments(self, audio: Tensor, seconds: float) -> Tensor:
        """Encode as ``__call__``, at most ``seconds`` at once and the context on both sides.

        Frames lie where they do in one pass. Their values differ by the influence of sound beyond the context.
        """
        frames = self.frames(len(audio))
        windows = plan_windows(frames, seconds * SAMPLING_RATE / HOP_LENGTH, CONTEXT * SAMPLING_RATE // HOP_LENGTH)
        if self.bounds_memory or len(windows) == 1:
            return self(audio)
        parts = []
        for first, last, kept in windows:
            begin, end = first * HOP_LENGTH, (last - 1) * HOP_LENGTH + WINDOW_LENGTH - 2 * self.padding
            parts.append(self(audio[begin : len(audio) if last == frames else end])[:, :, kept])
        return torch.cat(parts, dim=2)

    def features(self, audio: Tensor) -> Tensor:
        """Encode (L,), long enough for a frame, to (C, frames(L)) float32."""
        raise NotImplementedError

    def _checked(self, audio: Tensor) -> Tensor:
        if audio.dim() != 1:
            raise ValueError(f"a speech encoder takes mono sound of shape (samples,), not {tuple(audio.shape)}")
        if len(audio) == 0:
            raise UserError("there is no sound to encode: it has no samples")
        audio = audio.to(self.device, torch.float32)
        if not audio.isfinite().all():
            raise UserError("the sound to encode holds values that are not finite")
        shortest = WINDOW_LENGTH - 2 * self.padding
        return torch.nn.functional.pad(audio, (0, max(shortest - len(audio), 0)))

    def _half_features(self, audio: Tensor) -> Tensor | None:
        """Return the features in half precision; None without ``half``, or if they are not finite."""
        if not self.half:
            return None
        with autocast(self.device, "bf16" if self.device.type == "cpu" else "fp16"):
            features = self.features(audio).float()
        if features.isfinite().all():
            return features
        log.warning("%s: half precision does not suffice for this sound; it is encoded in float32", self.key)
        return None
