"""The converter: one trained model with its speech encoder and F0 predictors, turning songs into another voice.

A song goes through in slices: silence stays silence, every voiced slice is cut into pieces, and each piece is

    padded -> content units and F0 -> synthesizer -> loudness envelope -> cut to length -> joined to the one before
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.conversion import Conversion, refuse_absent_parts
from inference.segments import at_rate, join, pad_centred, plan_pieces, through_pcm16
from inference.song import Song
from modules.audio import match_envelope, read_audio, sinc_resample, volume
from modules.checkpoint import load_checkpoint, load_weights
from modules.clip_files import stretch_units
from modules.config import Config, ModelConfig, load_config
from modules.console import UserError
from modules.device import pick_device
from modules.f0 import build_f0_predictor
from modules.registry import nearest_first
from vencoder import ENCODERS, build_encoder
from vits.synthesizer import Synthesizer

ENCODER_OF_4_0 = "vec256l9"  # whose models have configs that do not name an encoder
SHORTEST_PIECE = 0.1  # seconds; encoders and predictors need a few frames, so less is padded up to this


class Svc:
    """A generator checkpoint with its configuration, ready to convert.

    The arguments keep the published order. Weights are computed with in float32, half-precision files as well. Raises
    UserError for a missing or unreadable file, an encoder without its weights, a config that does not match the
    checkpoint, and for the parts (diffusion, enhancer, mixing, retrieval) that this version does not have.
    """

    def __init__(
        self,
        net_g_path: str | Path,
        config_path: str | Path,
        device: str | None = None,
        cluster_model_path: str = "logs/44k/kmeans_10000.pt",
        nsf_hifigan_enhance: bool = False,
        diffusion_model_path: str = "logs/44k/diffusion/model_0.pt",
        diffusion_config_path: str = "configs/diffusion.yaml",
        shallow_diffusion: bool = False,
        only_diffusion: bool = False,
        spk_mix_enable: bool = False,
        feature_retrieval: bool = False,
        *,
        pretrain_folder: str | Path = "pretrain",
    ):
        refuse_absent_parts(
            nsf_hifigan_enhance=nsf_hifigan_enhance,
            shallow_diffusion=shallow_diffusion,
            only_diffusion=only_diffusion,
            spk_mix_enable=spk_mix_enable,
            feature_retrieval=feature_retrieval,
        )
        self.device = pick_device(device)
        self.config = load_config(config_path)
        # A model whose config names nobody has its rows' numbers for names.
        self.spk2id = self.config.spk or {str(row): row for row in range(self.config.model.n_speakers)}
        self.target_sample = self.config.data.sampling_rate
        self.hop_size = self.config.data.hop_length
        self.synthesizer = _load_synthesizer(net_g_path, self.config).to(self.device)
        self.encoder = build_encoder(encoder_key(self.config, config_path), self.device, pretrain_folder)
        self.pretrain_folder = pretrain_folder
        self._predictors: dict[tuple[str, float], Callable] = {}

    # -- songs --------------------------------------------------------------------------------------------------------

    def slice_inference(self, raw_audio_path: str | Path, *conversion: Any, **options: Any) -> np.ndarray:
        """Convert a whole song: (L,) float32 at ``target_sample``. The further arguments are Conversion's, in order."""
        return np.concatenate(list(self.convert(Song(raw_audio_path), Conversion(*conversion, **options))))

    def convert(self, song: Song, conversion: Conversion) -> Iterator[np.ndarray]:
        """Yield the converted song part by part, (n,) float32 at ``target_sample``.

        All parts together have the song's length at that rate, rounded up. No more than one slice is in memory.
        """
        for start, is_silence, audio in song.slices(conversion.slice_db):
            ends = [at_rate(start + n, song.sampling_rate, self.target_sample) for n in (0, len(audio))]
            if is_silence or not audio.any():
                yield np.zeros(ends[1] - ends[0], dtype=np.float32)
            else:
                yield from self._convert_slice(audio, start, song.sampling_rate, conversion)

    def _convert_slice(self, audio: np.ndarray, start: int, rate: int, conversion: Conversion) -> Iterator[np.ndarray]:
        def length(first: int, last: int) -> int:
            return at_rate(start + last, rate, self.target_sample) - at_rate(start + first, rate, self.target_sample)

        pieces = plan_pieces(len(audio), rate, conversion.clip_seconds, conversion.lg_num)
        converted = (
            self._convert_piece(audio[p.start : p.end], rate, length(p.start, p.end), conversion) for p in pieces
        )
        overlaps = [length(p.start, p.start + p.lead_in) for p in pieces]
        yield from join(converted, overlaps, conversion.lgr_num)

    def _convert_piece(self, audio: np.ndarray, rate: int, length: int, conversion: Conversion) -> np.ndarray:
        """Convert mono audio (n,) of any rate into exactly ``length`` samples at ``target_sample``."""
        pad = max(conversion.pad_seconds, (SHORTEST_PIECE - len(audio) / rate) / 2)
        padded = through_pcm16(np.pad(audio, int(pad * rate)))
        wav = sinc_resample(torch.from_numpy(padded).to(self.device), rate, self.target_sample)
        output = self.convert_wav(wav, conversion).cpu().numpy()
        cut = int(pad * self.target_sample)
        return pad_centred(output[cut : len(output) - cut], length)[:length]

    # -- one piece ----------------------------------------------------------------------------------------------------

    def infer(
        self,
        speaker: str | int,
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
        """Convert a file as one piece, in the published form: audio (hop * T,), its length, T."""
        refuse_absent_parts(spk_mix=spk_mix, frame=frame != 0)
        conversion = Conversion(
            speaker,
            tran,
            cluster_infer_ratio=cluster_infer_ratio,
            auto_predict_f0=auto_predict_f0,
            noice_scale=noice_scale,
            f0_predictor=f0_predictor,
            enhancer_adaptive_key=enhancer_adaptive_key,
            cr_threshold=cr_threshold,
            k_step=k_step,
            second_encoding=second_encoding,
            loudness_envelope_adjustment=loudness_envelope_adjustment,
        )
        audio, rate = read_audio(raw_path)
        wav = sinc_resample(torch.from_numpy(audio).to(self.device), rate, self.target_sample)
        output = self.convert_wav(wav, conversion, f0_filter)
        return output, len(output), len(output) // self.hop_size

    @torch.inference_mode()
    def convert_wav(self, wav: Tensor, conversion: Conversion, f0_filter: bool = False) -> Tensor:
        """Convert (L,) at ``target_sample`` on the model's device into (hop * T,), T = L // hop.

        Raises UserError for automatic F0 with a model that has no F0 decoder, for sound shorter than a frame, when the
        memory does not suffice, and when the output is not finite.
        """
        if len(wav) < self.hop_size:
            raise UserError(f"{len(wav)} samples are less than a frame of {self.hop_size}; there is nothing to convert")
        if conversion.auto_predict_f0 and not self.config.model.use_automatic_f0_prediction:
            raise UserError("automatic F0 prediction is asked for, but this model was trained without an F0 decoder")
        speaker = torch.tensor([[self.speaker_id(conversion.spk)]], device=self.device)
        try:
            units, f0, uv = self.get_unit_f0(
                wav,
                conversion.tran,
                conversion.cluster_infer_ratio,
                conversion.spk,
                f0_filter,
                conversion.f0_predictor,
                conversion.cr_threshold,
            )
            audio, _ = self.synthesizer.infer(
                units,
                f0,
                uv,
                speaker,
                noice_scale=conversion.noice_scale,
                seed=conversion.seed,
                predict_f0=conversion.auto_predict_f0,
                volume=volume(wav, self.hop_size)[None] if self.config.model.vol_embedding else None,
            )
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"{len(wav) / self.target_sample:.0f} s in one piece do not fit into the memory of {self.device}; "
                "cut the song into shorter ones with -cl 10 -lg 0.5, or convert with -d cpu"
            ) from None
        audio = audio[0, 0]
        if not audio.isfinite().all():
            raise UserError("the model gave sound that is not finite; its checkpoint is damaged, use an earlier one")
        if conversion.loudness_envelope_adjustment != 1:
            rate = self.target_sample
            audio = match_envelope(wav, rate, audio, rate, conversion.loudness_envelope_adjustment)
        return audio

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

        Raises UserError when ``f0_filter`` is set and there is no voice.
        """
        refuse_absent_parts(cluster_infer_ratio=cluster_infer_ratio != 0)
        f0, uv = (torch.from_numpy(track) for track in self.predictor(f0_predictor, cr_threshold)(wav.cpu().numpy()))
        if f0_filter and not f0.any():
            raise UserError("no voice was detected in the audio")
        f0 = (f0 * 2 ** (tran / 12)).to(self.device)
        units = self.encoder(sinc_resample(wav, self.target_sample, self.encoder.sampling_rate))[0].to(self.device)
        units = stretch_units(units, len(f0), self.config.data.unit_interpolate_mode)
        return units[None], f0[None], uv.to(self.device)[None]

    def predictor(self, key: str, threshold: float) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """The F0 predictor of this key and threshold, built when first asked for."""
        if (key, threshold) not in self._predictors:
            predictor = build_f0_predictor(
                key, self.target_sample, self.hop_size, self.device, threshold, self.pretrain_folder
            )
            self._predictors[key, threshold] = predictor
        return self._predictors[key, threshold]

    def speaker_id(self, speaker: str | int) -> int:
        """The embedding row of a speaker's name or id. Raises UserError listing the known ones, nearest first."""
        if speaker in self.spk2id:
            return self.spk2id[speaker]
        if str(speaker).isdecimal() and int(speaker) in self.spk2id.values():
            return int(speaker)
        known = ", ".join(nearest_first(str(speaker), self.spk2id))
        raise UserError(f"the model has no speaker '{speaker}'; it has: {known}")

    def only_speaker(self) -> str:
        """The speaker of a model that has one. Raises UserError listing them when it has several."""
        if len(self.spk2id) > 1:
            raise UserError(f"the model has several speakers; choose with -s: {', '.join(sorted(self.spk2id))}")
        return next(iter(self.spk2id))

    def clear_empty(self) -> None:
        """Give memory that is cached but not in use back to the CUDA device."""
        torch.cuda.empty_cache()

    def unload_model(self) -> None:
        """Let go of the networks; the object converts nothing afterwards."""
        del self.synthesizer, self.encoder
        self._predictors.clear()
        self.clear_empty()


def encoder_key(config: Config, where: str | Path) -> str:
    """The speech encoder a model was trained on; a 4.0 config does not name it, there the feature size tells.

    Raises UserError when the named encoder's features have another size than the model's.
    """
    key, size = config.model.speech_encoder, config.model.ssl_dim
    if ENCODERS[key].ssl_dim == size:
        return key
    if key == ModelConfig.speech_encoder and size == ENCODERS[ENCODER_OF_4_0].ssl_dim:
        return ENCODER_OF_4_0
    raise UserError(
        f"{where}: model.speech_encoder {key} gives {ENCODERS[key].ssl_dim} features, but model.ssl_dim is {size}; "
        "name the encoder that the model was trained on"
    )


def _load_synthesizer(path: str | Path, config: Config) -> Synthesizer:
    """The network with its weights folded, without the posterior encoder, which only training needs."""
    network = Synthesizer(
        config.model,
        spec_channels=config.data.filter_length // 2 + 1,
        segment_frames=config.train.segment_size // config.data.hop_length,
    )
    del network.enc_q
    weights = load_checkpoint(path).get("model")
    if not isinstance(weights, dict):
        raise UserError(f"{path} holds no 'model'; a generator's checkpoint (G_*.pth) is needed")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("enc_q.")}
    load_weights(network, weights, path)
    network.fold_weight_norm()
    return network.eval()
