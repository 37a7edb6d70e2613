"""The streaming converter: a block of sound in, a block of the same length out, a constant look-ahead later."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from inference.conversion import Conversion
from inference.svc import Svc
from live import pitch, units, voice
from live.durations import StageDurations
from live.gate import Gate
from live.history import History
from live.pitch import PitchStream
from live.units import UnitStream
from live.voice import VoiceStream
from modules.console import UserError

# Sound after a frame that its features need: the two units between which a frame may lie end 41 ms after its begin, and
# F0 and the latent hardly gain from more (benchmarks/README.md).
FEATURES_AHEAD = 0.046  # seconds
# Sound after a frame that the decoder needs for an error of -60 dB (benchmarks/README.md).
DECODER_AHEAD = 0.046  # seconds


class StreamingConverter:
    """A model, ready to convert an endless mono stream at its sampling rate.

    Positions are absolute: unit, F0, latent and excitation of a frame are computed once, from windows of constant
    length that end with the sound, and kept. So neighbouring blocks have no seam, and memory does not grow.

    Args:
        svc: the loaded model; diffusion, enhancer and ONNX graphs are not for live use.
        conversion: speaker, shift, F0 predictor and its threshold, level of silence, noise scale and seed; its other
            settings have no effect.
        block_seconds: length of a block, rounded to whole frames.

    Raises UserError as ``Svc.check``, and for a model that cannot be used live.
    """

    def __init__(self, svc: Svc, conversion: Conversion, block_seconds: float):
        if svc.pipeline.onnx or svc.refiner or svc.enhancer:
            raise UserError("a live conversion has no diffusion, enhancer or ONNX graph; load the generator alone")
        self.svc, self.rate, self.hop = svc, svc.target_sample, svc.hop_size
        self.frames = max(1, round(block_seconds * self.rate / self.hop))
        self.features_ahead = math.ceil(FEATURES_AHEAD * self.rate / self.hop)
        self.decoder_ahead = math.ceil(DECODER_AHEAD * self.rate / self.hop)
        self.stages = StageDurations("encoder", "F0", "prior and flow", "decoder")
        self.seed = conversion.seed
        self.change(conversion)
        self.reset()

    def reset(self) -> None:
        """Begin a new stream; the durations of stages are those of the new one."""
        self.stages.clear()
        svc, device, hop, voices = self.svc, self.svc.device, self.hop, self.svc.voices
        ahead = self.features_ahead + self.decoder_ahead
        self.window = self.frames + ahead + self._frames_of(voice.CONTEXT)
        encoded, heard = (self.frames + ahead + self._frames_of(module.CONTEXT) for module in (units, pitch))
        encoder, mode = svc.feature_extractor.encoder, voices.unit_interpolate_mode
        self.units = UnitStream(encoder, self.rate, hop, mode, max(encoded, self.window), device)
        self.pitch = PitchStream(hop, heard, max(self.window, heard), device)
        self.voice = VoiceStream(svc.synthesizer, self.frames, self.window, self.decoder_ahead, self.seed, device)
        self.gate = Gate(hop / self.rate)
        reads = max(self.units.reads, heard * hop, self.window * hop) + hop
        self.sound = History(1, reads, device)
        self.levels = History(1, max(self.window, self.frames + ahead + self.gate.behind), device)

    def _frames_of(self, seconds: float) -> int:
        return math.ceil(seconds * self.rate / self.hop)

    @property
    def block(self) -> int:
        """Samples of a block."""
        return self.frames * self.hop

    @property
    def look_ahead(self) -> int:
        """Samples by which the output lies behind the input: the output of a block ends so much before its end."""
        return (self.features_ahead + self.decoder_ahead) * self.hop

    def change(self, conversion: Conversion) -> None:
        """Convert the sound from the next block on with other settings, without a gap; the seed stays.

        Loads the F0 predictor if it is another, so it may take long; the present settings stay until it returns. It may
        be called while another thread converts. Raises UserError as ``Svc.check``.
        """
        self.svc.check(conversion)
        predictor = self.svc.feature_extractor.predictor(conversion.f0_predictor, conversion.cr_threshold)
        self._settings = conversion, self.svc.voices.id_of(conversion.spk), predictor

    @torch.inference_mode()
    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Convert a block (block,) float32 to audio (block,), which lies ``look_ahead`` behind it.

        Where the sound is silence, the output is silence, and no network computes. Raises ValueError for another
        length.
        """
        if block.shape != (self.block,):
            raise ValueError(f"a block has {self.block} samples, not {block.shape}")
        conversion, speaker, predictor = self._settings
        self.skip(block)
        end = self.sound.end // self.hop
        last = end - self.features_ahead - self.decoder_ahead
        gains = self._gains(last - self.frames, last, conversion.slice_db)
        if not gains.any():
            return np.zeros_like(block)
        final = end - self.features_ahead
        with self.stages.measure("encoder"):
            self.units.update(self.sound, final)
        with self.stages.measure("F0"):
            self.pitch.update(predictor, conversion.tran, self.sound, final)
        with self.stages.measure("prior and flow"):
            self.voice.speak(speaker, end)
            self.voice.update(*self._features(end), conversion.noice_scale, final)
        with self.stages.measure("decoder"):
            return (self.voice.decode(last - self.frames) * gains).cpu().numpy()

    def skip(self, sound: np.ndarray) -> None:
        """Continue after ``sound`` (a multiple of hop,) without converting it; it is context of the next block."""
        hop, newest = self.hop, torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None]
        self.sound.write(self.sound.end, newest)
        end = self.sound.end // hop
        first = max(self.levels.end, end - self.levels.length)
        around = self.sound.view(first * hop - hop // 2, end * hop - hop // 2)
        self.levels.write(first, around.view(-1, hop).square().mean(1).sqrt()[None])

    def recent_sound(self) -> np.ndarray:
        """Return the newest sound, whole frames of it, with which another converter may continue by ``skip``."""
        length = (self.sound.length // self.hop - 1) * self.hop
        return self.sound.view(self.sound.end - length, self.sound.end)[0].cpu().numpy()

    def _gains(self, first: int, last: int, threshold: float) -> Tensor:
        """Return the gate's gain at each sample of the frames ``first`` to ``last``."""
        levels = self.levels.view(first - self.gate.behind, last + self.gate.ahead)[0]
        gains = self.gate.gains(levels, threshold)
        steps = torch.arange(self.hop, device=gains.device) / self.hop
        return (gains[:-1, None] + (gains[1:] - gains[:-1])[:, None] * steps).flatten()

    def _features(self, end: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return units, F0, voicing and, if the model has an embedding of it, volume of the window that ends there."""
        window = end - self.window, end
        volume = self.levels.view(*window) if self.svc.config.model.vol_embedding else None
        return self.units.at(*window), self.pitch.f0(*window), self.pitch.uv(*window), volume
