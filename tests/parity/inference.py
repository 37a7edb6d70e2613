"""Adapters for the fixtures of conversion: cutting into pieces, filling up, mixes over a song's time (D_)."""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import inference.svc
from inference.conversion import Conversion
from inference.pieces import Fade, Piece, SliceLayout, join, lay_out, round_to_pcm16, split
from inference.song import Song
from inference.speaker_mix import SpeakerMix
from inference.svc import Svc
from inference.voices import Voices
from modules.audio.files import sinc_resample

Arrays = dict[str, np.ndarray]
HOP, SONG_RATE = 512, 16000


def split_pad(ins: Arrays, meta: dict) -> dict:
    outputs = {}
    for index, (length, size, lead_in) in enumerate(ins["split_args"].tolist()):
        spans = split(length, size, lead_in)
        outputs[f"split_{index}"] = np.array([[span.start, span.end - span.start] for span in spans], np.int64)
    for index, (length, target) in enumerate(ins["pad_args"].tolist()):
        outputs[f"pad_{index}"] = pad_centred(np.arange(1, length + 1, dtype=np.float32), target)
    return outputs


def spkmix_slice_inference(ins: Arrays, meta: dict) -> dict:
    """Slices, pieces, joints and mixes of this program, with the fixture's stand-in for the networks."""
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "song.wav", ins["wav_int16"], SONG_RATE, subtype="PCM_16")
        song = Song(Path(folder) / "song.wav")
        for key in (name.removeprefix("out_mix_") for name in meta["arrays"] if name.startswith("out_mix_")):
            tracks, *numbers = re.fullmatch(r"(\w+?)_(\d+)_([\d.]+)_([\d.]+)_([\d.]+)", key).groups()
            rate, (clip, fade, retain) = int(numbers[0]), map(float, numbers[1:])
            conversion = Conversion("", clip_seconds=clip, lg_num=fade, lgr_num=retain)
            layouts = lay_out(song, conversion, rate, HOP)
            audio = converted(song, layouts, conversion, rate)
            outputs |= {
                f"mix_{key}": mixed(meta["tracks"][tracks], layouts, rate),
                f"frames_{key}": counted(layouts),
                f"audio_head_{key}": np.concatenate([audio[:2000], audio[-2000:]]),
                f"audio_every97_{key}": audio[::97],
                f"audio_len_abs_{key}": np.array([len(audio), np.abs(audio).sum()]),
            }
    return outputs


def mixed(tracks: dict[str, list], layouts: list[SliceLayout], rate: int) -> np.ndarray:
    """The whole matrix (speakers, frames). The original counts the padding of a song of another rate in samples of the
    song's rate, so its matrix ends before the song does; this program's does not."""

    def frames(piece: Piece) -> int:
        return (piece.length + 2 * piece.padding) // HOP if piece.padding else piece.frames

    counts = [sum(map(frames, layout.pieces)) for layout in layouts]
    mix = SpeakerMix(tracks, Voices({name: int(name) for name in tracks}, rate, HOP, "", ""))
    return mix.weights(sum(counts) + len(counts)).T.numpy()


def counted(layouts: list[SliceLayout]) -> np.ndarray:
    """For each piece: frames before it, its frames, its samples at the song's rate."""
    pieces = [(piece, layout.is_silence) for layout in layouts for piece in layout.pieces]
    before = itertools.accumulate((piece.frames for piece, _ in pieces), initial=0)
    return np.array(
        [
            [first, piece.frames, piece.end - piece.start + 2 * piece.padding]
            for first, (piece, is_silence) in zip(before, pieces, strict=False)
            if not is_silence
        ]
    )


def converted(song: Song, layouts: list[SliceLayout], conversion: Conversion, rate: int) -> np.ndarray:
    """The joined song. The original overlaps pieces by as many samples as at the song's rate, whatever the model's;
    so does this function, while ``Piece.overlap`` is at the model's."""
    parts = []
    spans = ((chunk.start, chunk.end) for chunk in song.chunks(conversion.slice_db))
    for layout, audio in zip(layouts, song.parts(spans), strict=True):
        if layout.is_silence:
            parts.append(np.zeros(layout.pieces[0].length, np.float32))
            continue
        overlap = int(conversion.lg_num * SONG_RATE)
        fades = [Fade(overlap if piece.overlap else 0, conversion.lgr_num) for piece in layout.pieces]
        audios = [stand_in(audio[piece.start : piece.end], piece, rate) for piece in layout.pieces]
        parts += join(audios, fades)
    return np.concatenate(parts)


def stand_in(audio: np.ndarray, piece: Piece, rate: int) -> np.ndarray:
    """The fixture's stand-in for the networks: the sound interpolated to the model's rate, plus a slope."""
    padded = round_to_pcm16(np.pad(audio, piece.padding))
    length = -(-len(padded) * rate // SONG_RATE)
    output = np.interp(np.arange(length) / rate, np.arange(len(padded)) / SONG_RATE, padded)
    output = (output + 0.001 * np.arange(length) / length).astype(np.float32)
    return published_placement(output, round(piece.padding * rate / SONG_RATE), piece.length)


def published_placement(output: np.ndarray, cut: int, length: int) -> np.ndarray:
    """Cut a piece (length,) from the output as the original does: late by half the samples missing to a whole frame."""
    return pad_centred(output[cut : len(output) - cut], length)[:length]


def use_published_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make converters position and join pieces as the original does: without fades, and late by up to half a frame."""

    def convert_piece(svc, audio, rate, piece, conversion, mix, state):
        wav = torch.from_numpy(round_to_pcm16(np.pad(audio, piece.padding)))
        wav = sinc_resample(wav, rate, svc.target_sample)
        cut = round(piece.padding * svc.target_sample / rate)
        return published_placement(svc.convert_wav(wav, conversion, mix=mix, state=state).numpy(), cut, piece.length)

    monkeypatch.setattr(inference.svc, "with_fades", lambda layouts, *rates: layouts)
    monkeypatch.setattr(Svc, "_convert_piece", convert_piece)


def pad_centred(audio: np.ndarray, length: int) -> np.ndarray:
    """Zeros on both sides up to ``length`` samples, the odd one on the right; longer audio is left as it is."""
    lacking = max(0, length - len(audio))
    return np.pad(audio, (lacking // 2, lacking - lacking // 2))


ADAPTERS = {"D_split_pad": split_pad, "D_spkmix_slice_inference": spkmix_slice_inference}
