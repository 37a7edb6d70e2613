"""The synthesizer over a stream of frames: latent, excitation and audio, each computed once and kept."""

from __future__ import annotations

import torch
from torch import Tensor

from live.history import History
from vdecoder.block_plan import plan_block
from vits.synthesizer import Synthesizer

CONTEXT = 0.5  # seconds before a block that the prior and the flow see with it; the flow reaches 0.37 s
FAR = 1 << 16  # a frame so far from the begin of a song that a plan is not cut there


class VoiceStream:
    """Frames of features to audio.

    The prior and the flow compute a window of constant length that ends with the sound; the latent of final frames does
    not change any more. The decoder hears ``ahead`` further final frames, as if the song ended after them. Phases
    continue from frame to frame, and noise is a function of the frame's number, so that blocks have no seam.

    Args:
        net: the synthesizer, prepared for conversion.
        frames: frames of a block.
        window: frames of the prior's window.
        ahead: frames that the decoder hears after the block.
        seed: seed of the noise.
    """

    def __init__(self, net: Synthesizer, frames: int, window: int, ahead: int, seed: int, device: torch.device):
        self.net, self.dec, self.frames, self.window, self.ahead = net, net.dec, frames, window, ahead
        self.plan = plan_block(net.dec, FAR, FAR + frames, FAR + frames + ahead)
        hop, source = net.dec.hop_length, net.dec.m_source
        self.inter = net.enc_p.proj.out_channels // 2
        kept = window + ahead
        self.final = 0  # frame before which the latent is final
        self._latent = History(self.inter, kept, device)
        self._speaker = History(net.emb_g.embedding_dim, kept, device)
        self._speaker_since = 0  # frame from which on the speaker is the present one
        self._excitation = History(hop, kept, device)
        self._noise = FrameNoise(seed)
        self._first_phases = self._noise.uniform(source.tracks).to(device)
        self._phases = None

    @property
    def behind(self) -> int:
        """Frames before a block that the decoder hears."""
        return FAR - self.plan.window.start

    def speak(self, speaker: int, end: int) -> None:
        """Give the frames up to ``end`` that have no speaker yet to row ``speaker`` of the speaker table."""
        column = self.net.emb_g.weight[speaker][:, None]
        new = max(self._speaker.end, end - self._speaker.length)
        if not torch.equal(self._speaker.view(self._speaker.end - 1, self._speaker.end), column):
            self._speaker_since = new
        self._speaker.write(new, column.expand(-1, end - new))

    def update(
        self,
        units: Tensor,
        f0: Tensor,
        uv: Tensor,
        volume: Tensor | None,
        noice_scale: float,
        final_frames: int,
    ) -> None:
        """Compute latent and excitation from the newest features; afterwards the frames before ``final_frames`` are
        final.

        ``units`` (C, window), ``f0``, ``uv`` and ``volume`` (1, window) end with the frames that have a speaker.
        """
        end = self._speaker.end
        first = end - self.window
        noise = self._noise.normal(first, end, self.inter).t()[None].to(units)
        mask = units.new_ones(1, 1, self.window)
        x = self.net.content(units[None], uv, mask, volume)
        z = self.net.latent(x, f0, mask, self._condition(first, end), noise, noice_scale)[0]
        kept = max(self.final, first)
        self._latent.write(kept, z[:, kept - first :])
        if final_frames > kept:  # not so at the start, if a block is shorter than the look-ahead
            self._excite(f0[:, kept - first : final_frames - first], kept)
            self.final = final_frames

    def _excite(self, f0: Tensor, first: int) -> None:
        """Continue the excitation with the frames of ``f0`` (1, n) from ``first`` on."""
        source = self.dec.m_source
        self._phases = source.phases(f0, self._first_phases, self._phases)
        noise = self._noise.normal(first, first + f0.shape[1], source.hop_length * source.tracks, stream=1)
        mixed = source.mix(f0, self._phases, noise.view(1, -1, source.tracks).to(f0))
        self._phases = self._phases[-1:]
        self._excitation.write(first, mixed.view(f0.shape[1], -1).t())

    def decode(self, first: int) -> Tensor:
        """Return the audio (hop · frames,) of the block from frame ``first`` on, to whose end ``ahead`` frames follow
        that are final."""
        window = slice(*(first + edge - FAR for edge in (self.plan.window.start, self.plan.window.stop)))
        latent = self._latent.view(window.start, window.stop)[None]
        source = self._excitation.view(window.start, window.stop).t().reshape(1, 1, -1)
        return self.dec.generate(latent, source, self._condition(window.start, window.stop), self.plan)[0, 0]

    def _condition(self, first: int, last: int) -> Tensor:
        """Return the speaker of the frames: (1, G, 1), or (1, G, n) if it changes among them."""
        if first >= self._speaker_since:
            first = last - 1
        return self._speaker.view(first, last)[None]


class FrameNoise:
    """Random numbers as a function of the frame: the same whatever frames are asked for, and in which order."""

    def __init__(self, seed: int):
        self.seed, self._generator = seed, torch.Generator()

    def uniform(self, count: int) -> Tensor:
        """Return the numbers of the stream as a whole: (1, count), uniform from 0 to 1."""
        return torch.rand(1, count, generator=self._generator.manual_seed(self.seed))

    def normal(self, first: int, last: int, count: int, stream: int = 0) -> Tensor:
        """Return standard normal numbers (last - first, count) of the frames; ``stream`` tells two uses apart."""
        noise = torch.empty(last - first, count)
        for frame in range(first, last):
            # The generator heeds only 32 bits; the factor, a large odd number, scatters the seeds among them.
            self._generator.manual_seed((self.seed * 0x9E3779B1 + 2 * (frame + FAR) + stream) % 2**32)
            torch.randn(count, generator=self._generator, out=noise[frame - first])
        return noise
