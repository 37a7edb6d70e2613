"""Clips and their sidecar files as training batches.

All randomness of an item (its crop, its loudness) is a function of (seed, epoch, clip), so a resumed run gets the same
items as an uninterrupted one, with any number of loader workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from modules.audio.files import open_audio, read_audio
from modules.audio.loudness import random_gain
from modules.audio.spectrogram import linear_spectrogram, scale_spectrogram
from modules.config import Config
from modules.console import UserError
from modules.data.features import MAKER, Clip, ClipFiles, align, stretch_units
from modules.data.filelist import read_filelist, speaker_id, usable_clips
from modules.data.sampler import seeded_generator


@dataclass
class Item:
    """One clip with its sidecar files, cut to the same T frames, and its speaker's id (1,)."""

    clip: Clip
    speaker_id: Tensor

    @property
    def frames(self) -> int:
        return self.clip.f0.shape[0]

    def crop(self, start: int, frames: int, hop_length: int) -> Item:
        clip, cut = self.clip, slice(start, start + frames)
        cropped = Clip(
            units=clip.units[:, cut],
            f0=clip.f0[cut],
            uv=clip.uv[cut],
            spec=clip.spec[:, cut],
            audio=clip.audio[start * hop_length : (start + frames) * hop_length],
            volume=None if clip.volume is None else clip.volume[cut],
        )
        return Item(cropped, self.speaker_id)

    def louder(self, gain: float) -> Item:
        """Return the same clip, ``gain`` times as loud."""
        clip = self.clip
        louder = replace(
            clip, audio=clip.audio * gain, volume=clip.volume * gain, spec=scale_spectrogram(clip.spec, gain)
        )
        return Item(louder, self.speaker_id)


@dataclass
class Batch:
    """B items padded with zeros to the longest, sorted by length, longest first.

    c (B, C, T), f0 (B, T), uv (B, T), spec (B, F, T), audio (B, 1, T * hop), speaker_id (B, 1), lengths in frames (B,),
    volume (B, T) for a model with loudness embedding, otherwise None.
    """

    c: Tensor
    f0: Tensor
    uv: Tensor
    spec: Tensor
    audio: Tensor
    speaker_id: Tensor
    lengths: Tensor
    volume: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in self._present_fields()})

    def pin_memory(self) -> Batch:
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._present_fields()})

    def padded(self, multiple: int) -> Batch:
        """Append zeros, so that the number of frames is a multiple of ``multiple``; returns a new batch."""
        frames = self.f0.shape[1]
        surplus = -frames % multiple
        hop_length = self.audio.shape[2] // frames
        over_time = {n: x for n, x in self._present_fields() if n not in ("speaker_id", "lengths")}
        return replace(
            self, **{n: F.pad(x, (0, surplus * (hop_length if n == "audio" else 1))) for n, x in over_time.items()}
        )

    def tensors(self) -> list[Tensor | None]:
        """Return every field, in the order of the constructor."""
        return [getattr(self, f.name) for f in fields(self)]

    def _present_fields(self) -> list[tuple[str, Tensor]]:
        return [(f.name, tensor) for f in fields(self) if (tensor := getattr(self, f.name)) is not None]


class ClipDataset(Dataset):
    """The clips of a filelist with their sidecar files, read on each access or, with ``all_in_mem``, once.

    Indexed by the (epoch, clip) pairs of EpochBatches. With ``training``, long clips are cropped and, with ``vol_aug``,
    changed in loudness; validation clips are complete and unchanged.

    Raises UserError when no clip can be used, a speaker is not in the configuration, or the first clip (with
    ``all_in_mem``, any clip) is damaged or was made with other settings.
    """

    def __init__(self, filelist: str | Path, config: Config, *, training: bool):
        self.config, self.training = config, training
        sidecars = ("units", "f0", "volume") if config.model.vol_embedding else ("units", "f0")
        shortest = config.train.segment_size if training else 0
        self.paths = usable_clips(read_filelist(filelist), sidecars, config.data.sampling_rate, shortest)
        self.speakers = {path: speaker_id(path, config.spk) for path in self.paths}
        self.read(self.paths[0])  # a configuration that fits no clip raises an error before the run starts
        self.cache = [self.read(path) for path in self.paths] if config.train.all_in_mem else None

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self) -> list[int]:
        """Return the number of frames that training uses of each clip, from the clip's header."""
        return [self._cropped(self._frames(path)) for path in self.paths]

    def _frames(self, path: Path) -> int:
        with open_audio(path) as file:
            return file.frames // self.config.data.hop_length

    def _cropped(self, frames: int) -> int:
        """Return the frames left after cropping. As published, only clips more than ten over the limit are cropped."""
        limit = self.config.train.crop_frames
        return limit if frames > limit + 10 else frames

    def __getitem__(self, key: tuple[int, int]) -> Item | UserError:
        """Return the item, or a UserError as a value: raised in a loader's worker, it would become a traceback."""
        epoch, index = key
        try:
            item = self.cache[index] if self.cache else self.read(self.paths[index])
        except UserError as error:
            return error
        if not self.training:
            return item
        return self.crop_and_augment(item, seeded_generator(self.config.train.seed, epoch, index))

    def crop_and_augment(self, item: Item, generator: torch.Generator) -> Item:
        """Crop a long item for one epoch and, with ``vol_aug``, change its loudness with probability 1/2."""
        train = self.config.train
        gain = None
        if train.vol_aug and torch.rand((), generator=generator) < 0.5:
            gain = random_gain(item.clip.audio, generator)
        frames = self._cropped(item.frames)
        if frames < item.frames:
            start = int(torch.randint(item.frames - frames + 1, (1,), generator=generator))
            item = item.crop(start, frames, self.config.data.hop_length)
        return item if gain is None else item.louder(gain)

    def read(self, path: Path) -> Item:
        """Read one clip and its sidecar files.

        Raises UserError naming the clip when a sidecar file is missing, of another encoder, or of another length.
        """
        data, model, files = self.config.data, self.config.model, ClipFiles(path)
        audio = torch.from_numpy(read_audio(path)[0])
        f0, uv = map(torch.from_numpy, files.read_f0())
        clip = Clip(
            units=stretch_units(files.read_units(model.ssl_dim)[0], len(f0), data.unit_interpolate_mode),
            f0=f0,
            uv=uv,
            spec=self.spectrogram(files, audio),
            audio=audio,
            volume=torch.from_numpy(files.read_volume()) if model.vol_embedding else None,
        )
        for name in ("units", "f0", "uv", "spec", "volume"):
            if (tensor := getattr(clip, name)) is not None and not tensor.sum().isfinite():
                raise UserError(f"the {name} of {path} are not finite; run '{MAKER}' again, or take the clip away")
        return Item(align(clip, data.hop_length, path), torch.tensor([self.speakers[path]]))

    def spectrogram(self, files: ClipFiles, audio: Tensor) -> Tensor:
        """Read the clip's linear spectrogram (F, T) from its sidecar file; compute and write a missing one."""
        if files.spec.exists():
            return files.read_spec()
        data = self.config.data
        spec = linear_spectrogram(audio[None], data.filter_length, data.hop_length, data.win_length)[0]
        files.write_spec(spec)
        return spec


def collate(items: Sequence[Item | UserError]) -> Batch | UserError:
    """Pad items to a batch; returns the first error if an item is one."""
    for item in items:
        if isinstance(item, UserError):
            return item
    items = sorted(items, key=lambda item: item.frames, reverse=True)

    def padded(name: str) -> Tensor:
        tensors = [getattr(item.clip, name) for item in items]
        stacked = tensors[0].new_empty(len(tensors), *tensors[0].shape)  # the first is the longest
        for row, tensor in zip(stacked, tensors, strict=True):
            row[..., : tensor.shape[-1]] = tensor
            row[..., tensor.shape[-1] :] = 0
        return stacked

    return Batch(
        c=padded("units"),
        f0=padded("f0"),
        uv=padded("uv"),
        spec=padded("spec"),
        audio=padded("audio")[:, None],
        speaker_id=torch.stack([item.speaker_id for item in items]),
        lengths=torch.tensor([item.frames for item in items]),
        volume=None if items[0].clip.volume is None else padded("volume"),
    )
