"""The converter: a trained model with its speech encoder and F0 predictors, turning songs into another voice.

A song goes through in slices: silence stays silence, every voiced slice is cut into pieces, and each piece is

    padded -> content units and F0 -> synthesizer -> diffusion or enhancer -> loudness envelope -> joined to the last
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.conversion import Conversion, Parts
from inference.layout import Place, SliceLayout, lay_out, with_fades
from inference.listener import Listener
from inference.model_files import GRAPH_SUFFIX
from inference.onnx_synthesizer import OnnxSynthesizer
from inference.refinement import Refiner
from inference.segments import join, through_pcm16
from inference.song import Song
from inference.speaker_mix import SpeakerMix
from inference.timbre import Timbre
from inference.voices import synthesizer_voices
from inference.voicing import Voicing
from modules.audio.files import sinc_resample
from modules.audio.loudness import match_envelope, volume
from modules.config import load_config
from modules.console import UserError, get_logger, option
from modules.device import pick_device
from modules.memory import is_lack_of_memory
from vdecoder.enhancer import Enhancer
from vdecoder.mel_vocoder import load_mel_vocoder
from vdecoder.source import skip_unused_noise
from vencoder import ENCODERS
from vits.generator_file import load_generator

log = get_logger("convert")


class Svc:
    """A generator checkpoint, a diffusion model or both, with their configurations, ready to convert.

    The arguments keep the published order. ``only_diffusion`` needs neither generator nor config, ``shallow_diffusion``
    leaves the enhancer out, and any converter mixes speakers (``spk_mix_enable`` has no work left). What lies at
    ``cluster_model_path`` is read when a conversion first asks for it. Weights are computed with in float32.

    A generator called ``*.onnx`` is run by ONNX Runtime, and with it the encoder and the F0 predictors whose graphs are
    there.

    Args beyond the published: pretrain_folder holds encoders, predictors and the enhancer's vocoder; diffusion_method
    and diffusion_speedup take the place of the YAML's; nprobe is how many lists of the feature index are searched, None
    as many as are needed.

    Raises UserError for a missing or unreadable file, an encoder without its weights, and what does not match.
    """

    def __init__(
        self,
        net_g_path: str | Path | None,
        config_path: str | Path | None,
        device: str | None = None,
        cluster_model_path: str | Path = "logs/44k/kmeans_10000.pt",
        nsf_hifigan_enhance: bool = False,
        diffusion_model_path: str | Path = "logs/44k/diffusion/model_0.pt",
        diffusion_config_path: str | Path = "configs/diffusion.yaml",
        shallow_diffusion: bool = False,
        only_diffusion: bool = False,
        spk_mix_enable: bool = False,
        feature_retrieval: bool = False,
        *,
        pretrain_folder: str | Path = "pretrain",
        diffusion_method: str | None = None,
        diffusion_speedup: int | None = None,
        nprobe: int | None = 1,
    ):
        onnx = net_g_path is not None and Path(net_g_path).suffix == GRAPH_SUFFIX
        self.parts = Parts(nsf_hifigan_enhance, shallow_diffusion, only_diffusion, onnx)
        self.device = pick_device(device)
        self.config = self.synthesizer = self.refiner = self.enhancer = None
        if shallow_diffusion or only_diffusion:
            self.refiner = Refiner(
                diffusion_model_path, diffusion_config_path, self.device, diffusion_method, diffusion_speedup
            )
        if only_diffusion:
            self.voices = self.refiner.voices
        else:
            self.config = load_config(config_path)
            self.voices = synthesizer_voices(self.config, config_path)
            if onnx:
                self.synthesizer = OnnxSynthesizer(net_g_path, self.config, self.device)
            else:
                self.synthesizer = load_generator(net_g_path, self.config).to(self.device)
        self.spk2id = self.voices.spk2id
        self.target_sample, self.hop_size = self.voices.sampling_rate, self.voices.hop_length
        if self.refiner:
            self.refiner.refuse_others(self.voices)
        elif nsf_hifigan_enhance:
            vocoder = load_mel_vocoder(Path(pretrain_folder) / "nsf_hifigan" / "model", self.device)
            self.enhancer = Enhancer(vocoder)
        self.listener = Listener(self.voices, self.device, pretrain_folder, onnx)
        self._timbre_file = cluster_model_path, self.voices, feature_retrieval, nprobe
        self._timbre: Timbre | None = None
        for sentence in self.parts.without_effect:
            log.info("%s", sentence)

    def check(self, conversion: Conversion) -> None:
        """Raise UserError now for what would make every song fail: a missing speaker, part, depth or file."""
        self.parts.refuse_missing(conversion)
        if conversion.auto_predict_f0 and not self.config.model.use_automatic_f0_prediction:
            raise UserError("automatic F0 prediction is asked for, but this model was trained without an F0 decoder")
        if conversion.use_spk_mix:
            speaker = SpeakerMix(conversion.spk, self.voices).weights(1)
        else:
            speaker = torch.tensor([[self.voices.id_of(conversion.spk)]])
            if conversion.cluster_infer_ratio:
                nothing = torch.zeros(ENCODERS[self.voices.encoder].ssl_dim, 1)
                self.timbre.draw(nothing, conversion.spk, conversion.cluster_infer_ratio)
        if self.parts.onnx:
            self.synthesizer.speakers(speaker, 1)
        if self.refiner:
            self.refiner.check(None if self.parts.only_diffusion else conversion.k_step)
            self.refiner.speaker(speaker, self.voices)
        self.listener.predictor(conversion.f0_predictor, conversion.cr_threshold)

    # -- songs --------------------------------------------------------------------------------------------------------

    def slice_inference(self, raw_audio_path: str | Path, *conversion: Any, **options: Any) -> np.ndarray:
        """Convert a whole song: (L,) float32 at ``target_sample``. The further arguments are Conversion's, in order."""
        return np.concatenate(list(self.convert(Song(raw_audio_path), Conversion(*conversion, **options))))

    def convert(self, song: Song, conversion: Conversion) -> Iterator[np.ndarray]:
        """Yield the converted song part by part, (n,) float32 at ``target_sample``.

        All parts together have the song's length at that rate, rounded up. No more than one slice is in memory.
        Raises UserError as ``check`` and ``convert_wav``.
        """
        self.check(conversion)
        voicing = self.listener.voicing = Voicing()
        rates = song.sampling_rate, self.target_sample, self.hop_size
        slices = with_fades(lay_out(song, conversion, *rates[1:]), *rates)
        parts = self._converted(song, slices, conversion)
        try:
            yield from join(parts, [place.fade for part in slices for place in part.places])
        finally:
            self.listener.voicing = None
        if voicing.is_lost:
            log.warning("%s", voicing.warning(song.path, conversion.f0_predictor))

    def _converted(self, song: Song, slices: list[SliceLayout], conversion: Conversion) -> Iterator[np.ndarray]:
        """Yield the converted pieces and the silences of a song, each with what fades into its neighbours."""
        mixes = itertools.repeat(itertools.repeat(None))
        if conversion.use_spk_mix:
            mixes = SpeakerMix(conversion.spk, self.voices).spread([part.frames for part in slices])
        audios = song.parts(
            (part.start + place.start - place.before, part.start + place.end + place.after)
            for part in slices for place in part.places if not part.is_silence
        )  # fmt: skip
        for part, weights in zip(slices, mixes, strict=False):
            for place, mix in zip(part.places, weights, strict=False):
                audio = None if part.is_silence else next(audios)
                if audio is None or not audio.any():
                    yield np.zeros(place.lead + place.length + place.trail, dtype=np.float32)
                else:
                    yield self._convert_piece(audio, song.sampling_rate, place, conversion, mix)

    def _convert_piece(
        self, audio: np.ndarray, rate: int, place: Place, conversion: Conversion, mix: Tensor | None
    ) -> np.ndarray:
        """Convert the mono audio of one place into its lead, length and trail at ``target_sample``.

        Frame i of the model is the sound from sample ``i * hop`` on, so the piece begins at the place's offset.
        """
        padding = place.padding - place.before, place.padding - place.after
        wav = torch.from_numpy(through_pcm16(np.pad(audio, padding))).to(self.device)
        wav = sinc_resample(wav, rate, self.target_sample)
        wav = functional.pad(wav, (0, max(0, place.frames * self.hop_size - len(wav))))
        output = self.convert_wav(wav, conversion, mix=mix).cpu().numpy()
        return output[place.offset - place.lead : place.offset + place.length + place.trail]

    # -- one piece ----------------------------------------------------------------------------------------------------

    def infer(
        self,
        speaker: str | int | Tensor,
        tran: float,
        raw_path: str | Path,
        cluster_infer_ratio: float = 0,
        auto_predict_f0: bool = False,
        noice_scale: float = Conversion.noice_scale,
        f0_filter: bool = False,
        f0_predictor: str = Conversion.f0_predictor,
        enhancer_adaptive_key: int = 0,
        cr_threshold: float = Conversion.cr_threshold,
        k_step: int = Conversion.k_step,
        frame: int = 0,
        spk_mix: bool = False,
        second_encoding: bool = False,
        loudness_envelope_adjustment: float = 1,
    ) -> tuple[Tensor, int, int]:
        """Convert a file as one piece, in the published form: audio (hop * T,), its length, T.

        With ``spk_mix`` the speaker is a matrix of weights (S, frames), of which the columns from ``frame`` on count.
        """
        conversion = Conversion(
            next(iter(self.spk2id)) if spk_mix else speaker,
            tran,
            cluster_infer_ratio=0 if spk_mix else cluster_infer_ratio,
            auto_predict_f0=auto_predict_f0,
            noice_scale=noice_scale,
            f0_predictor=f0_predictor,
            enhancer_adaptive_key=enhancer_adaptive_key,
            cr_threshold=cr_threshold,
            k_step=k_step,
            second_encoding=second_encoding,
            loudness_envelope_adjustment=loudness_envelope_adjustment,
        )
        self.check(conversion)
        song = Song(raw_path)
        wav = sinc_resample(torch.from_numpy(song.read()).to(self.device), song.sampling_rate, self.target_sample)
        mix = torch.as_tensor(speaker)[:, frame : frame + len(wav) // self.hop_size].t() if spk_mix else None
        output = self.convert_wav(wav, conversion, f0_filter, mix)
        return output, len(output), len(output) // self.hop_size

    @torch.inference_mode()
    def convert_wav(
        self, wav: Tensor, conversion: Conversion, f0_filter: bool = False, mix: Tensor | None = None
    ) -> Tensor:
        """Convert (L,) at ``target_sample`` on the model's device into hop * T samples, T = L // hop.

        ``mix`` (T, S) are weights of the speakers in each frame, in place of the conversion's speaker. The enhancer may
        give a frame more or less. Raises UserError for sound shorter than a frame or, with ``f0_filter``, without a
        voice, when the memory does not suffice, and when the output is not finite.
        """
        if len(wav) < self.hop_size:
            raise UserError(f"{len(wav)} samples are less than a frame of {self.hop_size}; there is nothing to convert")
        try:
            audio = self._sing(wav, conversion, f0_filter, mix)
        except (RuntimeError, MemoryError) as error:
            if not is_lack_of_memory(error):
                raise
            elsewhere = "" if self.device.type == "cpu" else f", or convert with {option('device', 'cpu')}"
            raise UserError(
                f"{len(wav) / self.target_sample:.0f} s in one piece do not fit into the memory of {self.device}; "
                f"cut the song into shorter ones with {option('clip_seconds', 10)} and {option('lg_num', 0.5)}"
                f"{elsewhere}"
            ) from error
        if not audio.isfinite().all():
            raise UserError("the model gave sound that is not finite; its checkpoint is damaged, use an earlier one")
        rate = self.target_sample
        return match_envelope(wav, rate, audio, rate, conversion.loudness_envelope_adjustment)

    def _sing(self, wav: Tensor, conversion: Conversion, f0_filter: bool, mix: Tensor | None) -> Tensor:
        """The features of wav (L,), and what synthesizer, diffusion and enhancer make of them: (hop * T,)."""
        speaker = torch.tensor([[self.voices.id_of(conversion.spk)]]) if mix is None else mix.float()
        speaker = speaker.to(self.device)
        units, f0, uv = self.get_unit_f0(
            wav,
            conversion.tran,
            conversion.cluster_infer_ratio if mix is None else 0,  # a mix has no one speaker to be drawn towards
            conversion.spk,
            f0_filter,
            conversion.f0_predictor,
            conversion.cr_threshold,
        )
        # As published: the parts draw one after the other from one generator, seeded for each piece.
        generator = torch.Generator().manual_seed(conversion.seed)
        audio = None
        if self.synthesizer:
            audio, f0 = self.synthesizer.infer(
                units,
                f0,
                uv,
                speaker,
                noice_scale=conversion.noice_scale,
                generator=generator,
                predict_f0=conversion.auto_predict_f0,
                volume=volume(wav, self.hop_size)[None] if self.config.model.vol_embedding else None,
            )
            audio = audio[:, 0]
            if self.refiner or self.enhancer:
                skip_unused_noise(audio.shape[1], generator)
        if self.refiner:
            # Loudness is the song's where the synthesizer followed it, else that of what it sang.
            follows = audio is None or self.config.model.vol_embedding
            loudness = volume(wav if follows else audio[0], self.hop_size)[None]
            if conversion.second_encoding:
                units = self.listener.units(audio[0], f0.shape[1])[None]
            speaker = self.refiner.speaker(speaker, self.voices)
            audio = self.refiner.refine(units, f0, loudness, speaker, audio, conversion.k_step, generator)
        if self.enhancer:
            key = conversion.enhancer_adaptive_key
            audio = self.enhancer.fill_frames(audio, self.target_sample, key)
            audio, rate = self.enhancer.enhance(audio, self.target_sample, f0, self.hop_size, key, generator=generator)
            audio = sinc_resample(audio[None], rate, self.target_sample)
        return audio[0]

    @torch.inference_mode()
    def get_unit_f0(
        self,
        wav: Tensor,
        tran: float,
        cluster_infer_ratio: float,
        speaker: str | int,
        f0_filter: bool,
        f0_predictor: str,
        cr_threshold: float = Conversion.cr_threshold,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Content units (1, C, T), F0 in Hz moved by ``tran`` semitones (1, T) and voicing (1, T) of wav (L,).

        Raises UserError when ``f0_filter`` is set and there is no voice, and as ``Timbre`` for a ratio that is not 0.
        """
        f0, uv = self.listener.f0(wav, f0_predictor, cr_threshold)
        if f0_filter and not f0.any():
            raise UserError("no voice was detected in the audio")
        units = self.listener.units(wav, len(f0))
        if cluster_infer_ratio:
            units = self.timbre.draw(units, speaker, cluster_infer_ratio)
        return units[None], f0[None] * 2 ** (tran / 12), uv[None]

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def timbre(self) -> Timbre:
        """The cluster centres or the feature index, read when first asked for."""
        if self._timbre is None:
            self._timbre = Timbre(*self._timbre_file)
        return self._timbre

    def clear_empty(self) -> None:
        """Give memory that is cached but not in use back to the CUDA device."""
        torch.cuda.empty_cache()

    def unload_model(self) -> None:
        """Let go of the networks; the object converts nothing afterwards."""
        del self.synthesizer, self.refiner, self.enhancer, self.listener, self._timbre
        self.clear_empty()
