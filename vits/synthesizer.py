"""The synthesizer: content, pitch and a speaker to audio, through a latent space shared with real spectrograms.

A conditional variational autoencoder with a flow and adversarial training: VITS, https://arxiv.org/abs/2106.06103.
Shapes: content (B, C, T), F0 and voicing (B, T), spectrograms (B, bins, T), masks (B, 1, T), speaker (B, G, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers.convolution import Conv1d
from modules.layers.weight_norm import fold_normed_weights
from vdecoder import DECODERS
from vdecoder.source import random_tensor
from vits.f0_decoder import F0Decoder, f0_to_coarse, f0_to_lf0, lf0_to_f0, normalize_lf0
from vits.flow import Flow
from vits.posterior_encoder import PosteriorEncoder
from vits.prior_encoder import PriorEncoder

PUBLISHED_SEED = 52468  # of every conversion, as published


@dataclass
class SynthesizerOutput:
    """The output of a training pass. The last three are None when the model predicts no F0."""

    audio: Tensor  # (B, 1, segment samples)
    slice_starts: Tensor  # (B,) frames
    mask: Tensor  # (B, 1, T)
    z: Tensor  # (B, inter, T), as the next five
    z_p: Tensor
    m_p: Tensor
    logs_p: Tensor
    m_q: Tensor
    logs_q: Tensor
    pred_lf0: Tensor | None = None  # (B, 1, T), as the next two
    norm_lf0: Tensor | None = None
    lf0: Tensor | None = None


class Synthesizer(nn.Module):
    """The published ``SynthesizerTrn``: the same parameters under the same names, in the same order.

    Args:
        model: the config's ``model`` section.
        spec_channels: bins of the linear spectrogram.
        segment_frames: length of the slice that training decodes to audio.
    """

    def __init__(self, model: ModelConfig, spec_channels: int = 1025, segment_frames: int = 20):
        super().__init__()
        self.segment_frames = segment_frames
        self.emb_g = nn.Embedding(model.n_speakers, model.gin_channels)
        self.emb_vol = nn.Linear(1, model.hidden_channels) if model.vol_embedding else None
        self.pre = Conv1d(model.ssl_dim, model.hidden_channels, 5, padding=2)
        self.enc_p = PriorEncoder(model)
        self.dec = DECODERS[model.vocoder_name].build(model)
        self.enc_q = PosteriorEncoder(model, spec_channels)
        self.flow = Flow(model)
        self.f0_decoder = F0Decoder(model) if model.use_automatic_f0_prediction else None
        self.emb_uv = nn.Embedding(2, model.hidden_channels)

    def forward(
        self,
        c: Tensor,
        f0: Tensor,
        uv: Tensor,
        spec: Tensor,
        speaker_id: Tensor,
        lengths: Tensor,
        volume: Tensor | None = None,
    ) -> SynthesizerOutput:
        """Run a training pass over padded clips; a random slice of each is decoded to audio.

        Args:
            c: content (B, C, T).
            f0: Hz (B, T), interpolated across unvoiced frames.
            uv: (B, T), 1 where voiced.
            spec: linear spectrogram (B, bins, T).
            speaker_id: (B, 1), rows of the speaker table.
            lengths: (B,), frames of each clip, none shorter than the slice.
            volume: (B, T), ignored by a model without loudness embedding.
        """
        g = self.emb_g(speaker_id).transpose(1, 2)
        mask = sequence_mask(lengths, c.shape[2])
        x = self.content(c, uv, mask, volume)
        pred_lf0 = norm_lf0 = lf0 = None
        if self.f0_decoder is not None:
            lf0 = f0_to_lf0(f0)[:, None]
            norm_lf0 = normalize_lf0(lf0, mask, uv, random_scale=True)
            pred_lf0 = self.f0_decoder(x, norm_lf0, mask, g)
        m_p, logs_p = self.enc_p(x, mask, f0_to_coarse(f0))
        z, m_q, logs_q = self.enc_q(spec, mask, g)
        z_p = self.flow(z, mask, g)
        starts = random_slice_starts(lengths, self.segment_frames)
        audio = self.dec(cut_slices(z, starts, self.segment_frames), cut_slices(f0, starts, self.segment_frames), g)
        return SynthesizerOutput(audio, starts, mask, z, z_p, m_p, logs_p, m_q, logs_q, pred_lf0, norm_lf0, lf0)

    @torch.inference_mode()
    def infer(
        self,
        c: Tensor,
        f0: Tensor,
        uv: Tensor,
        speaker: Tensor,
        noice_scale: float = 0.35,  # the config format's own spelling
        generator: torch.Generator | None = None,
        predict_f0: bool = False,
        volume: Tensor | None = None,
        needed: slice = slice(None),
        on_progress: Callable[[int], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Convert content and F0 to audio, the same on every device if ``generator`` is on the CPU in the same state.

        Args:
            c, f0, uv, volume: as in forward, without padding.
            speaker: ids (B, 1), or weights of the first S speakers for each frame (T, S), then B is 1.
            noice_scale: factor on the prior's standard deviation.
            generator: source of all random numbers; None makes one with PUBLISHED_SEED.
            predict_f0: let the model choose the F0; ignored by a model that cannot.
            needed: frames to decode; the audio of the others is zero.
            on_progress: called with the number of frames that are decoded, after every block.

        Returns:
            Audio (B, 1, hop·T) and its F0, Hz (B, T).
        """
        generator = generator or torch.Generator().manual_seed(PUBLISHED_SEED)
        g = self.speaker_condition(speaker)
        mask = c.new_ones(len(c), 1, c.shape[2])
        x = self.content(c, uv, mask, volume)
        if predict_f0 and self.f0_decoder is not None:
            norm_lf0 = normalize_lf0(f0_to_lf0(f0)[:, None], mask, uv)
            f0 = lf0_to_f0(self.f0_decoder(x, norm_lf0, mask, g)).squeeze(1)
        noise = random_tensor(torch.randn, self.noise_shape(f0), c.device, generator).to(x.dtype)
        z = self.latent(x, f0, mask, g, noise, noice_scale)
        return self.dec.decode(z, f0, g, generator, needed=needed, on_progress=on_progress), f0

    def noise_shape(self, f0: Tensor) -> tuple[int, int, int]:
        """Return the shape (B, inter, T) of the noise that ``latent`` needs for ``f0`` (B, T)."""
        return len(f0), self.enc_p.proj.out_channels // 2, f0.shape[1]

    def latent(self, x: Tensor, f0: Tensor, mask: Tensor, g: Tensor, noise: Tensor, noice_scale: float = 1.0) -> Tensor:
        """Compute the decoder's input (B, inter, T): sample the prior of ``x`` (B, hidden, T), and invert the flow."""
        m_p, logs_p = self.enc_p(x, mask, f0_to_coarse(f0))
        return self.flow(m_p + noise * logs_p.exp() * noice_scale, mask, g, reverse=True)

    def speaker_condition(self, speaker: Tensor) -> Tensor:
        """Map ids (B, 1) to (B, G, 1), or weights (T, S) of the first S speakers to their mix (1, G, T)."""
        if not speaker.is_floating_point():
            return self.emb_g(speaker).transpose(1, 2)
        table = self.emb_g.weight[: speaker.shape[1]]
        return (speaker.to(table.dtype) @ table).t()[None]

    def fold_weight_norm(self) -> None:
        """Replace every normalised weight by a plain one, which is faster for conversion and gives the same result."""
        fold_normed_weights(self)

    def content(self, c: Tensor, uv: Tensor, mask: Tensor, volume: Tensor | None) -> Tensor:
        """Sum the embeddings of content, voicing and, if the model has one, loudness: (B, hidden, T)."""
        x = self.pre(c) * mask + self.emb_uv(uv.long()).transpose(1, 2)
        if self.emb_vol is None or volume is None:
            return x
        return x + self.emb_vol(volume[:, :, None]).transpose(1, 2)


# -- slices of padded batches -----------------------------------------------------------------------------------------


def sequence_mask(lengths: Tensor, frames: int) -> Tensor:
    """Map ``lengths`` (B,) to masks (B, 1, frames): 1 before the length and 0 from it on."""
    return (torch.arange(frames, device=lengths.device) < lengths[:, None]).float()[:, None]


def random_slice_starts(lengths: Tensor, slice_frames: int) -> Tensor:
    """Choose a random first frame for each clip (B,), uniform over the starts from which a whole slice fits."""
    starts = (lengths - slice_frames + 1).clamp(min=1)
    return (torch.rand(len(lengths), device=lengths.device) * starts).long()


def cut_slices(x: Tensor, starts: Tensor, size: int) -> Tensor:
    """Cut ``size`` values along the last dimension of ``x`` (B, ..., T), from each item's start in ``starts`` (B,)."""
    index = starts[:, None] + torch.arange(size, device=x.device)
    index = index.view(len(x), *[1] * (x.dim() - 2), size)
    return x.gather(-1, index.expand(*x.shape[:-1], size))
