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
from inference.layout import Place, SliceLayout, lay_out
from inference.segments import Fade, join, split, through_pcm16
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
        pieces = split(length, size, lead_in)
        outputs[f"split_{index}"] = np.array([[piece.start, piece.end - piece.start] for piece in pieces], np.int64)
    for index, (length, target) in enumerate(ins["pad_args"].tolist()):
        outputs[f"pad_{index}"] = pad_centred(np.arange(1, length + 1, dtype=np.float32), target)
    return outputs


def spkmix_slice_inference(ins: Arrays, meta: dict) -> dict:
    """Our slices, pieces, joints and mixes around the fixture's stand-in for the networks."""
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "song.wav", ins["wav_int16"], SONG_RATE, subtype="PCM_16")
        song = Song(Path(folder) / "song.wav")
        for key in (name.removeprefix("out_mix_") for name in meta["arrays"] if name.startswith("out_mix_")):
            tracks, *numbers = re.fullmatch(r"(\w+?)_(\d+)_([\d.]+)_([\d.]+)_([\d.]+)", key).groups()
            rate, (clip, fade, retain) = int(numbers[0]), map(float, numbers[1:])
            conversion = Conversion("", clip_seconds=clip, lg_num=fade, lgr_num=retain)
            layout = lay_out(song, conversion, rate, HOP)
            audio = converted(song, layout, conversion, rate)
            outputs |= {
                f"mix_{key}": mixed(meta["tracks"][tracks], layout, rate),
                f"frames_{key}": counted(layout),
                f"audio_head_{key}": np.concatenate([audio[:2000], audio[-2000:]]),
                f"audio_every97_{key}": audio[::97],
                f"audio_len_abs_{key}": np.array([len(audio), np.abs(audio).sum()]),
            }
    return outputs


def mixed(tracks: dict[str, list], layout: list[SliceLayout], rate: int) -> np.ndarray:
    """The whole matrix (speakers, frames). To a song of another rate the original adds the padding in samples of the
    song's rate, so its matrix ends before the song does; ours does not."""

    def frames(place: Place) -> int:
        return (place.length + 2 * place.padding) // HOP if place.padding else place.frames

    counts = [sum(map(frames, part.places)) for part in layout]
    mix = SpeakerMix(tracks, Voices({name: int(name) for name in tracks}, rate, HOP, "", ""))
    return mix.weights(sum(counts) + len(counts)).T.numpy()


def counted(layout: list[SliceLayout]) -> np.ndarray:
    """For each piece: frames before it, its frames, its samples at the song's rate."""
    places = [(place, part.is_silence) for part in layout for place in part.places]
    before = itertools.accumulate((place.frames for place, _ in places), initial=0)
    return np.array(
        [
            [first, place.frames, place.end - place.start + 2 * place.padding]
            for first, (place, is_silence) in zip(before, places, strict=False)
            if not is_silence
        ]
    )


def converted(song: Song, layout: list[SliceLayout], conversion: Conversion, rate: int) -> np.ndarray:
    """The joined song. The original overlaps pieces by as many samples as at the song's rate, whatever the model's;
    so do we here, while ``Place.overlap`` is at the model's."""
    parts = []
    spans = ((chunk.start, chunk.end) for chunk in song.chunks(conversion.slice_db))
    for part, audio in zip(layout, song.parts(spans), strict=True):
        if part.is_silence:
            parts.append(np.zeros(part.places[0].length, np.float32))
            continue
        overlap = int(conversion.lg_num * SONG_RATE)
        fades = [Fade(overlap if place.overlap else 0, conversion.lgr_num) for place in part.places]
        pieces = [stand_in(audio[place.start : place.end], place, rate) for place in part.places]
        parts += join(pieces, fades)
    return np.concatenate(parts)


def stand_in(audio: np.ndarray, place: Place, rate: int) -> np.ndarray:
    """What the fixture has in place of the networks: the sound drawn to the model's rate, and a slope."""
    padded = through_pcm16(np.pad(audio, place.padding))
    length = -(-len(padded) * rate // SONG_RATE)
    output = np.interp(np.arange(length) / rate, np.arange(len(padded)) / SONG_RATE, padded)
    output = (output + 0.001 * np.arange(length) / length).astype(np.float32)
    return published_placement(output, round(place.padding * rate / SONG_RATE), place.length)


def published_placement(output: np.ndarray, cut: int, length: int) -> np.ndarray:
    """The piece (length,) from the model's output as the original places it: late by half of what whole frames lack."""
    return pad_centred(output[cut : len(output) - cut], length)[:length]


def use_published_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let converters place and join pieces as the original does: without fades, and late by up to half a frame."""

    def convert_piece(svc, audio, rate, place, conversion, mix):
        wav = torch.from_numpy(through_pcm16(np.pad(audio, place.padding)))
        wav = sinc_resample(wav, rate, svc.target_sample)
        cut = round(place.padding * svc.target_sample / rate)
        return published_placement(svc.convert_wav(wav, conversion, mix=mix).numpy(), cut, place.length)

    monkeypatch.setattr(inference.svc, "with_fades", lambda slices, *rates: slices)
    monkeypatch.setattr(Svc, "_convert_piece", convert_piece)


def pad_centred(audio: np.ndarray, length: int) -> np.ndarray:
    """Zeros on both sides up to ``length`` samples, the odd one on the right; longer audio is left as it is."""
    lacking = max(0, length - len(audio))
    return np.pad(audio, (lacking // 2, lacking - lacking // 2))


ADAPTERS = {"D_split_pad": split_pad, "D_spkmix_slice_inference": spkmix_slice_inference}
