"""The converter: converts songs into a trained voice, with the model, its speech encoder and an F0 predictor.

A song is cut into slices. Silence stays silence, every other slice is cut into pieces, and each piece is

    padded -> features -> synthesizer -> diffusion or enhancer -> loudness envelope -> joined to the previous piece
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.auto_key import choose_octaves
from inference.conversion import Conversion, Pipeline
from inference.f0_curve import F0Log
from inference.feature_extractor import FeatureExtractor, Features
from inference.model_files import GRAPH_SUFFIX
from inference.onnx_synthesizer import OnnxSynthesizer
from inference.pieces import Piece, SliceLayout, join, lay_out, round_to_pcm16, with_fades
from inference.precision import pick_dtype
from inference.refinement import Refiner
from inference.song import Song
from inference.song_state import Progress, SongState
from inference.speaker_mix import SpeakerMix
from inference.timbre import Timbre
from inference.voices import synthesizer_voices
from modules.audio.files import sinc_resample
from modules.audio.loudness import match_envelope, volume
from modules.config import load_config
from modules.console import UserError, get_logger, option
from modules.device import pick_device
from modules.memory import free_memory, is_lack_of_memory
from vdecoder.enhancer import Enhancer
from vdecoder.mel_vocoder import load_conversion_vocoder
from vdecoder.source import skip_unused_noise
from vencoder import ENCODERS
from vits.generator_file import load_generator

log = get_logger("convert")

# Segments are what the encoder processes at once, with up to 20 MiB a second (WavLM).
LONGEST_SEGMENT = 60.0  # seconds
SHORTEST_SEGMENT = 2.0  # seconds
SEGMENT_MEMORY = 0.06  # GiB that should be free for a second
SEGMENTS_IN_A_PIECE = 3  # F0 is found in a whole piece, for which rmvpe needs the most memory, 8 MiB a second


class Svc:
    """A generator checkpoint, a diffusion model or both, ready to convert.

    The arguments keep the published order. ``only_diffusion`` needs neither generator nor config, ``shallow_diffusion``
    leaves the enhancer out, and ``spk_mix_enable`` is ignored, since any converter mixes speakers. The file at
    ``cluster_model_path`` is read on first use.

    A generator called ``*.onnx`` is run by ONNX Runtime, and so are the encoder and the F0 predictors that have a
    graph.

    Arguments beyond the published ones: ``pretrain_folder`` holds encoders, predictors and the enhancer's vocoder;
    ``diffusion_method`` and ``diffusion_speedup`` replace the YAML's; ``nprobe`` is how many lists of the feature index
    are searched, None for as many as needed; ``max_segment`` is how many seconds the encoder processes at
    once, None for what fits into memory; ``cache_folder`` and ``keep_units`` are as in ``FeatureExtractor``;
    the decoder's residual blocks and the encoder compute in ``precision``, see ``pick_dtype``.

    Raises UserError for a missing or unreadable file, an encoder without its weights, and files that do not match.
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
        max_segment: float | None = None,
        cache_folder: str | Path | None = None,
        keep_units: bool = False,
        precision: str = "auto",
    ):
        onnx = net_g_path is not None and Path(net_g_path).suffix == GRAPH_SUFFIX
        self.pipeline = Pipeline(nsf_hifigan_enhance, shallow_diffusion, only_diffusion, onnx)
        self.device = pick_device(device)
        self.dtype = pick_dtype(precision, self.device)
        self.config = self.synthesizer = self.refiner = self.enhancer = None
        if shallow_diffusion or only_diffusion:
            self.refiner = Refiner(
                diffusion_model_path,
                diffusion_config_path,
                self.device,
                diffusion_method,
                diffusion_speedup,
                self.dtype,
            )
        if only_diffusion:
            self.voices, self.path, self.config_path = self.refiner.voices, diffusion_model_path, diffusion_config_path
        else:
            self.config, self.path, self.config_path = load_config(config_path), net_g_path, config_path
            self.voices = synthesizer_voices(self.config, config_path)
            if onnx:
                self.synthesizer = OnnxSynthesizer(net_g_path, self.config, self.device)
            else:
                self.synthesizer = load_generator(net_g_path, self.config).to(self.device)
                self.synthesizer.dec.prepare_for_conversion(self.dtype)
        self.spk2id = self.voices.spk2id
        self.target_sample, self.hop_size = self.voices.sampling_rate, self.voices.hop_length
        if self.refiner:
            self.refiner.check_voices(self.voices)
        elif nsf_hifigan_enhance:
            self._enhancer_file = Path(pretrain_folder) / "nsf_hifigan" / "model"
            vocoder = load_conversion_vocoder(self._enhancer_file, self.device, "nsf-hifigan", self.dtype)
            self.enhancer = Enhancer(vocoder)
        self.feature_extractor = FeatureExtractor(
            self.voices, self.device, pretrain_folder, onnx, cache_folder, keep_units, self.dtype != torch.float32
        )
        self.segment = max_segment or default_segment(self.device)
        self._halved = self._closed = False
        self._timbre_file = cluster_model_path, self.voices, feature_retrieval, nprobe
        self._timbre: Timbre | None = None
        for sentence in self.pipeline.ignored:
            log.info("%s", sentence)

    def check(self, conversion: Conversion) -> None:
        """Raise UserError for whatever would make every song fail: a missing speaker, stage, depth or file."""
        self._refuse_closed()
        self.pipeline.refuse_missing(conversion)
        if conversion.auto_predict_f0 and not self.config.model.use_automatic_f0_prediction:
            raise UserError("automatic F0 prediction is on, but this model was trained without an F0 decoder")
        if conversion.use_spk_mix:
            speaker = SpeakerMix(conversion.spk, self.voices).weights(1)
        else:
            speaker = torch.tensor([[self.voices.id_of(conversion.spk)]])
            if conversion.cluster_infer_ratio:
                units = torch.zeros(ENCODERS[self.voices.encoder].ssl_dim, 1)
                self.timbre.blend(units, conversion.spk, conversion.cluster_infer_ratio)
        if self.pipeline.onnx:
            self.synthesizer.speakers(speaker, 1)
        if self.refiner:
            self.refiner.check(None if self.pipeline.only_diffusion else conversion.k_step)
            self.refiner.speaker(speaker, self.voices)
        self.feature_extractor.predictor(conversion.f0_predictor, conversion.cr_threshold)

    def check_f0_range(self, conversion: Conversion) -> list[float]:
        """Return the F0 range of the conversion's speaker: the 10th, 50th and 90th percentile in Hz.

        Raises UserError if the model's config does not have it, or a mix has no single speaker.
        """
        if conversion.use_spk_mix:
            raise UserError("a mix of speakers has no F0 range from which a key could be chosen; give it as a number")
        name = self.voices.name_of(conversion.spk)
        if self.config is None or name not in self.config.f0:
            raise UserError(
                f"{self.config_path} has no F0 range of {name}, from which a key could be chosen; "
                "preprocess_hubert_f0.py writes the section f0 to configs/config.json, which may be copied; or give "
                "the key as a number"
            )
        return self.config.f0[name]

    def suggest_shift(self, song: Song, conversion: Conversion) -> int:
        """Return the octaves, in semitones, that bring the song's F0 closest to the speaker's, and log both.

        Raises UserError as ``check_f0_range``, and if the song has no F0.
        """
        self.check(conversion)
        known, voiced = self.check_f0_range(conversion), [np.zeros(0, np.float32)]
        settings = conversion.f0_predictor, conversion.cr_threshold
        for piece, audio in self._sounding_pieces(song, self._lay_out(song, conversion)):
            wav = self._wave(audio, song.sampling_rate, piece)
            f0, uv = self.feature_extractor.contour(wav, *settings, piece.origin, conversion.f0_curve)
            voiced.append(f0[uv > 0].cpu().numpy())
        return choose_octaves(np.concatenate(voiced), known, song.path, self.voices.name_of(conversion.spk))

    # -- songs --------------------------------------------------------------------------------------------------------

    def slice_inference(
        self, raw_audio_path: str | Path | BinaryIO | tuple[np.ndarray, int], *conversion: Any, **options: Any
    ) -> np.ndarray:
        """Convert a whole song: (L,) float32 at ``target_sample``. The other arguments are those of Conversion."""
        return np.concatenate(list(self.convert(Song(raw_audio_path), Conversion(*conversion, **options))))

    def convert(
        self, song: Song, conversion: Conversion, *, on_progress: Progress | None = None, f0_log: F0Log | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the converted song in consecutive parts, (n,) float32 at ``target_sample``.

        Together they have the song's length at that rate, rounded up. At most one piece is in memory. ``on_progress``
        and ``f0_log`` are as in ``SongState``. Raises UserError as ``check`` and ``convert_wav``.
        """
        self.check(conversion)
        state = SongState(self.target_sample, self.hop_size, on_progress, f0_log)
        layouts = self._lay_out(song, conversion)
        audios = self._convert_slices(song, layouts, conversion, state)
        yield from join(audios, [piece.fade for layout in layouts for piece in layout.pieces])
        if state.voicing.is_lost and not conversion.f0_curve:
            log.warning("%s", state.voicing.warning(song.path, conversion.f0_predictor))

    def piece_seconds(self, song: Song, conversion: Conversion) -> list[float]:
        """Return the lengths of the pieces that would be converted, without silence, in seconds."""
        layouts = [layout for layout in self._lay_out(song, conversion) if not layout.is_silence]
        return [piece.length / self.target_sample for layout in layouts for piece in layout.pieces]

    def describe(self) -> str:
        """Describe in one line what computes where."""
        networks = {
            f"the encoder {self.voices.encoder}": True,
            f"the synthesizer {'graph' if self.pipeline.onnx else 'network'}": self.synthesizer,
            "diffusion": self.refiner,
            "the enhancer": self.enhancer,
        }
        names = ", ".join(name for name, present in networks.items() if present)
        precision = "the graphs' precision" if self.pipeline.onnx else _name(self.dtype)
        return f"on {self.device}, in {precision}: {names}; segments of {self.segment:g} s"

    def _lay_out(self, song: Song, conversion: Conversion) -> list[SliceLayout]:
        rates = song.sampling_rate, self.target_sample, self.hop_size
        longest = self.segment * (SEGMENTS_IN_A_PIECE if self._has_segments else 1)
        return with_fades(lay_out(song, conversion, *rates[1:], longest), *rates)

    def _convert_slices(
        self, song: Song, layouts: list[SliceLayout], conversion: Conversion, state: SongState
    ) -> Iterator[np.ndarray]:
        """Yield the converted pieces and the silences, each with the samples that fade into its neighbours."""
        mixes = itertools.repeat(itertools.repeat(None))
        if conversion.use_spk_mix:
            mixes = SpeakerMix(conversion.spk, self.voices).piece_weights(
                [[piece.frames for piece in layout.pieces] for layout in layouts]
            )
        sounding = self._sounding_pieces(song, layouts)
        for layout, weights in zip(layouts, mixes, strict=False):
            for piece, mix in zip(layout.pieces, weights, strict=False):
                audio = None if layout.is_silence else next(sounding)[1]
                if audio is None or not audio.any():
                    yield np.zeros(piece.faded_length, dtype=np.float32)
                else:
                    yield self._convert_piece(audio, song.sampling_rate, piece, conversion, mix, state)

    def _sounding_pieces(self, song: Song, layouts: list[SliceLayout]) -> Iterator[tuple[Piece, np.ndarray]]:
        """Yield the pieces that are not silence, each with the song's mono audio from its lead-in to its trail."""
        pieces = [(layout.start, piece) for layout in layouts if not layout.is_silence for piece in layout.pieces]
        audios = song.parts((start + one.start - one.before, start + one.end + one.after) for start, one in pieces)
        yield from zip((piece for _, piece in pieces), audios, strict=True)

    def _convert_piece(
        self, audio: np.ndarray, rate: int, piece: Piece, conversion: Conversion, mix: Tensor | None, state: SongState
    ) -> np.ndarray:
        """Convert the mono audio of one piece, at the song's rate: (faded_length,) at ``target_sample``.

        Frame i of the model is the sound from sample ``i * hop`` on, so the piece begins at its offset.
        """
        wav = self._wave(audio, rate, piece)
        state.begin(piece.origin + piece.offset, piece.length)
        first, last = piece.offset - piece.lead, piece.offset + piece.length + piece.trail
        needed = slice(first // self.hop_size, -(-last // self.hop_size))
        output = (
            self.convert_wav(wav, conversion, mix=mix, start=piece.origin, state=state, needed=needed).cpu().numpy()
        )
        return output[first:last]

    def _wave(self, audio: np.ndarray, rate: int, piece: Piece) -> Tensor:
        """Return the padded audio of a piece at ``target_sample``."""
        padding = piece.padding - piece.before, piece.padding - piece.after
        wav = torch.from_numpy(round_to_pcm16(np.pad(audio, padding))).to(self.device)
        wav = sinc_resample(wav, rate, self.target_sample)
        return functional.pad(wav, (0, max(0, piece.frames * self.hop_size - len(wav))))

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
        """Convert a file as one piece; returns audio (hop * T,), its length, and T, as published.

        With ``spk_mix`` the speaker is a matrix of weights (S, frames), used from column ``frame`` on.
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
        output = self.convert_wav(wav, conversion, f0_filter, mix, frame * self.hop_size)
        return output, len(output), len(output) // self.hop_size

    @torch.inference_mode()
    def convert_wav(
        self,
        wav: Tensor,
        conversion: Conversion,
        f0_filter: bool = False,
        mix: Tensor | None = None,
        start: int = 0,
        state: SongState | None = None,
        needed: slice = slice(None),
    ) -> Tensor:
        """Convert (L,) at ``target_sample`` on the model's device into hop * T samples, T = L // hop.

        ``mix`` (T, S) are weights of the speakers in each frame, in place of the conversion's speaker. ``start`` is the
        song's sample at which ``wav`` begins. Of frames that are not ``needed`` the output may be zero. The enhancer
        may give a frame more or less. Raises UserError if the sound is shorter than a frame or, with ``f0_filter``, has
        no F0, if memory runs out, and if the output is not finite.
        """
        self._refuse_closed()
        if len(wav) < self.hop_size:
            raise UserError(f"{len(wav)} samples are less than a frame of {self.hop_size}; there is nothing to convert")
        while True:
            try:
                features = self._extract(wav, conversion, f0_filter, start)
                audio = self._synthesize(self._adapt(features, conversion, mix), conversion, mix, state, needed)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_lack_of_memory(error):
                    raise
                reason = str(error)
            self._halve_segment(len(wav) / self.target_sample, reason)  # here, where the failed tensors are free
        if state:
            state.add(wav.cpu().numpy(), features)
        if not audio.isfinite().all():
            raise UserError(self._not_finite())
        rate = self.target_sample
        return match_envelope(wav, rate, audio, rate, conversion.loudness_envelope_adjustment)

    def _halve_segment(self, seconds: float, reason: str) -> None:
        """Halve the segment after memory ran out for a piece of ``seconds``, and log it once.

        Raises UserError if a shorter segment would not help.
        """
        self.clear_empty()
        if min(self.segment, seconds) < 2 * SHORTEST_SEGMENT or not self._has_segments:
            elsewhere = "" if self.device.type == "cpu" else f", or convert with {option('device', 'cpu')}"
            shorter = round(seconds / 4)
            cure = f"give {option('max_segment', shorter)}, which cuts long phrases" if shorter > 1 else "free memory"
            raise UserError(
                f"{seconds:.0f} s in one piece do not fit into the memory of {self.device} ({reason[:100]}); "
                f"{cure}{elsewhere}"
            )
        level = logging.DEBUG if self._halved else logging.WARNING
        self.segment, self._halved = min(self.segment, seconds) / 2, True
        log.log(level, "the memory of %s is full; segments are %.0f s from now on", self.device, self.segment)

    @property
    def _has_segments(self) -> bool:
        """Whether pieces are processed in segments; otherwise a piece is no longer than a segment."""
        return not (self.refiner or self.enhancer or self.pipeline.onnx)

    def _not_finite(self) -> str:
        if self.dtype == torch.float32 or self.pipeline.onnx:
            return f"{self.path} gives sound that is not finite; it is damaged, use an earlier checkpoint"
        return f"{self.path} gives sound that is not finite in {_name(self.dtype)}; give {option('precision', 'fp32')}"

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
        """Extract content units (1, C, T), F0 (1, T) in Hz, shifted by ``tran`` semitones, and voicing (1, T) of (L,).

        Raises UserError if ``f0_filter`` is set and no frame has F0, and as ``Timbre`` if the ratio is not 0.
        """
        self._refuse_closed()
        features = self.feature_extractor.extract(wav, f0_predictor, cr_threshold, f0_filter)
        features = self._adapted(features, tran, cluster_infer_ratio, speaker)
        return features.units, features.f0, features.uv

    def _extract(self, wav: Tensor, conversion: Conversion, f0_filter: bool, start: int) -> Features:
        """Extract the features of wav (L,), which begins at the song's sample ``start``."""
        key, threshold, curve = conversion.f0_predictor, conversion.cr_threshold, conversion.f0_curve
        return self.feature_extractor.extract(wav, key, threshold, f0_filter, start, curve, self.segment)

    def _adapt(self, features: Features, conversion: Conversion, mix: Tensor | None) -> Features:
        """Adapt features to the conversion's shift and, without a mix, to its speaker."""
        ratio = conversion.cluster_infer_ratio if mix is None else 0
        return self._adapted(features, conversion.tran, ratio, conversion.spk)

    def _adapted(self, features: Features, tran: float, ratio: float, speaker: str | int) -> Features:
        """Shift F0 by ``tran`` semitones and blend the units with the speaker's own by the share ``ratio``."""
        units = self.timbre.blend(features.units[0], speaker, ratio)[None] if ratio else features.units
        return replace(features, units=units, f0=features.f0 * 2 ** (tran / 12))

    def _synthesize(
        self, features: Features, conversion: Conversion, mix: Tensor | None, state: SongState | None, needed: slice
    ) -> Tensor:
        """Convert features into audio (hop * T,) with the synthesizer, the diffusion and the enhancer."""
        speaker = torch.tensor([[self.voices.id_of(conversion.spk)]]) if mix is None else mix.float()
        speaker = speaker.to(self.device)
        # As published: one generator, seeded for each piece, gives the random numbers of all stages in turn, on the
        # device. An ONNX graph gets them from the CPU.
        device = "cpu" if self.pipeline.onnx else self.device
        generator = torch.Generator(device).manual_seed(conversion.seed)
        audio = None
        follows = self.refiner or self.enhancer or conversion.loudness_envelope_adjustment != 1  # read all of the audio
        if self.synthesizer:
            audio, f0 = self.synthesizer.infer(
                features.units,
                features.f0,
                features.uv,
                speaker,
                noice_scale=conversion.noice_scale,
                generator=generator,
                predict_f0=conversion.auto_predict_f0,
                volume=features.volume if self.config.model.vol_embedding else None,
                needed=slice(None) if follows else needed,
                on_progress=state and (lambda frames: state.report(features.start + frames * self.hop_size)),
            )
            audio, features = audio[:, 0], replace(features, f0=f0)
            if self.refiner or self.enhancer:
                skip_unused_noise(audio.shape[1], generator)
        if self.refiner:
            if audio is not None and not self.config.model.vol_embedding:
                features = replace(features, volume=volume(audio[0], self.hop_size)[None])
            if conversion.second_encoding:
                units = self.feature_extractor.encode_again(audio[0], features.f0.shape[1])
                features = replace(features, units=units[None])
            speaker = self.refiner.speaker(speaker, self.voices)
            on_progress = state.report if state else None
            audio = self.refiner.refine(features, speaker, audio, conversion.k_step, generator, on_progress)
        if self.enhancer:
            key = conversion.enhancer_adaptive_key
            audio = self.enhancer.fill_frames(audio, self.target_sample, key)
            audio, rate = self.enhancer.enhance(
                audio, self.target_sample, features.f0, self.hop_size, key, generator=generator
            )
            audio = sinc_resample(audio[None], rate, self.target_sample)
        return audio[0]

    # -- files and memory ---------------------------------------------------------------------------------------------

    def files(self, conversion: Conversion) -> list[Path]:
        """Return the files that determine a conversion.

        These are models, configs, vocoders, and those of the encoder, of the F0 predictor and of the timbre that are
        used. Raises UserError if the predictor's is missing.
        """
        found = [self.path, self.config_path, *self.feature_extractor.files(conversion)]
        if conversion.cluster_infer_ratio:
            found.append(self._timbre_file[0])
        if self.refiner:
            found += [self.refiner.path, self.refiner.config_path, self.refiner.config.vocoder.ckpt]
        elif self.enhancer:
            found.append(self._enhancer_file)
        return [path for path in map(Path, filter(None, found)) if path.is_file()]

    @property
    def timbre(self) -> Timbre:
        """The cluster centres or the feature index, read on first use."""
        self._refuse_closed()
        if self._timbre is None:
            self._timbre = Timbre(*self._timbre_file)
        return self._timbre

    def clear_empty(self) -> None:
        """Free the unused memory that PyTorch caches on the CUDA device."""
        torch.cuda.empty_cache()

    def close(self) -> None:
        """Free the networks; the converter cannot be used afterwards. Further calls have no effect."""
        self.synthesizer = self.refiner = self.enhancer = self.feature_extractor = self._timbre = None
        self._closed = True
        self.clear_empty()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UserError(f"the converter of {self.path} is closed; load the model again")

    def unload_model(self) -> None:
        """Free the networks, as ``close``; this is the published name."""
        self.close()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def default_segment(device: torch.device) -> float:
    """Return the seconds of a segment: 60, or a half, a quarter or an eighth of that where little memory is free."""
    free = free_memory(device)
    segment = LONGEST_SEGMENT
    while free is not None and segment > LONGEST_SEGMENT / 8 and segment * SEGMENT_MEMORY > free:
        segment /= 2
    return segment
