"""Clips and their sidecar files as batches for diffusion.

A clip's crop in an epoch, and whether it is augmented, are functions of (seed, epoch, clip), so a resumed run gets the
same items as an uninterrupted one, with any number of loader workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from modules.audio.files import open_audio
from modules.config import DiffusionConfig
from modules.console import UserError, progress
from modules.data.features import DIFFUSION_MAKER, ClipFiles, common_frames, frames, stretch_units
from modules.data.filelist import read_filelist, speaker_id, usable_clips
from modules.data.sampler import seeded_generator

MARGIN = 0.1  # seconds that a clip must be longer than data.duration, as published


@dataclass
class Features:
    """All T frames of one clip: units (T, C), f0 (T,) in Hz, volume (T,), mel (T, M)."""

    units: Tensor
    f0: Tensor
    volume: Tensor
    mel: Tensor


@dataclass
class TrainingFeatures(Features):
    """Also the clip at another loudness and key; ``shift`` is in semitones."""

    aug_mel: Tensor
    aug_volume: Tensor
    shift: float


@dataclass
class DiffusionBatch:
    """B items of T frames: units (B, T, C), f0 (B, T, 1) in Hz, volume (B, T, 1), mel (B, T, M), speaker_id (B, 1),
    aug_shift (B, 1, 1) in semitones. An item is a batch with B = 1."""

    units: Tensor
    f0: Tensor
    volume: Tensor
    mel: Tensor
    speaker_id: Tensor
    aug_shift: Tensor

    def to(self, device: torch.device) -> DiffusionBatch:
        return DiffusionBatch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin_memory(self) -> DiffusionBatch:
        return DiffusionBatch(*(getattr(self, f.name).pin_memory() for f in fields(self)))


class DiffusionDataset(Dataset):
    """The clips of a filelist with their sidecar files, read on each access or, with ``cache_all_data``, once.

    Indexed by the (epoch, clip) pairs of EpochBatches. With ``training`` an item is a crop of ``data.duration``, with
    probability 1/2 of the augmented mel; for validation it is the complete, unchanged clip.

    Args:
        filelist: one clip a line.
        config: the complete ``diffusion.yaml``.
        n_mels: bins of the vocoder's mel.
        training: see above; validation clips stay on the CPU, in single precision.
        device: for the training clips, unless ``cache_device`` is the CPU.

    Raises UserError when no clip can be used, a training clip is too short for the crop, a speaker is not in the
    configuration, or a sidecar file of the first clip (with ``cache_all_data``, of any clip) is damaged or was made
    with other settings.
    """

    def __init__(
        self,
        filelist: str | Path,
        config: DiffusionConfig,
        *,
        n_mels: int,
        training: bool,
        device: torch.device | str = "cpu",
    ):
        data, train = config.data, config.train
        self.config, self.n_mels, self.training = config, n_mels, training
        self.crop_frames = max(1, frames(int(data.duration * data.sampling_rate), data.block_size))
        self.device = torch.device(device if training and train.cache_device != "cpu" else "cpu")
        self.half = training and train.cache_all_data and train.cache_fp16
        sidecars = ("units", "f0", "volume", "mel") + (("aug_mel", "aug_volume") if training else ())
        self.paths = usable_clips(read_filelist(filelist), sidecars, data.sampling_rate, maker=DIFFUSION_MAKER)
        if training:
            self._refuse_short_clips(filelist)
        self.speakers = [self._speaker(path) for path in self.paths]
        self.read(self.paths[0])  # a configuration that fits no clip raises an error before the run starts
        self.cache = None
        if train.cache_all_data:
            self.cache = [self.read(path) for path in progress(self.paths, description="reading", unit="clip")]

    def _refuse_short_clips(self, filelist: str | Path) -> None:
        duration, rate = self.config.data.duration, self.config.data.sampling_rate
        samples = {path: samples_of(path) for path in self.paths}
        short = [path for path in self.paths if samples[path] < round((duration + MARGIN) * rate)]
        if short:
            shortest = min(short, key=samples.get)
            raise UserError(
                f"{shortest} has {samples[shortest] / rate:.2f} s, too little for crops of {duration:g} s, which take "
                f"{MARGIN} s more; {len(short)} of {len(self.paths)} clips are so short: lower data.duration in the "
                f"diffusion configuration, or take them out of {filelist}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> DiffusionBatch | UserError:
        """Return the item, or a UserError as a value: raised in a loader's worker, it would become a traceback."""
        epoch, index = key
        try:
            features = self.cache[index] if self.cache else self.read(self.paths[index])
        except UserError as error:
            return error
        shift = 0.0
        if self.training:
            features, shift = self.crop_and_augment(features, seeded_generator(self.config.train.seed, epoch, index))
        return DiffusionBatch(
            units=features.units[None].float(),
            f0=features.f0[None, :, None],
            volume=features.volume[None, :, None],
            mel=features.mel[None].float(),
            # These two stay on the CPU: a batch moves them to the device at once, not item by item.
            speaker_id=torch.tensor([[self.speakers[index]]]),
            aug_shift=torch.tensor([[[shift]]]),
        )

    def crop_and_augment(self, features: TrainingFeatures, generator: torch.Generator) -> tuple[Features, float]:
        """Return one epoch's crop of a clip, augmented with probability 1/2, and its shift in semitones."""
        starts = len(features.f0) - self.crop_frames + 1
        start = int(torch.randint(starts, (), generator=generator))
        cut = slice(start, start + self.crop_frames)
        units, f0 = features.units[cut], features.f0[cut]
        if torch.rand((), generator=generator) < 0.5:
            return Features(units, f0, features.volume[cut], features.mel[cut]), 0.0
        f0 = f0 * 2 ** (features.shift / 12)
        return Features(units, f0, features.aug_volume[cut], features.aug_mel[cut]), features.shift

    def read(self, path: Path) -> Features:
        """Read one clip's sidecar files, cut to the same frames.

        Raises UserError naming the clip when one is missing, of another encoder or vocoder, or of another length.
        """
        data, files = self.config.data, ClipFiles(path)
        f0, _ = files.read_f0()
        units = stretch_units(files.read_units(data.encoder_out_channels)[0], len(f0), data.unit_interpolate_mode).T
        arrays = {"units": units, "f0": f0, "volume": files.read_volume(), "mel": files.read_mel(self.n_mels)}
        if self.training:
            augmented = files.read_augmented(self.n_mels)
            arrays |= {"aug_mel": augmented.mel, "aug_volume": augmented.volume}
        lengths = {name: len(array) for name, array in arrays.items()}
        audio_frames = frames(samples_of(path), data.block_size)
        common = common_frames({"audio": audio_frames, **lengths}, path, DIFFUSION_MAKER)
        tensors = {name: self._stored(name, torch.as_tensor(array)[:common]) for name, array in arrays.items()}
        return TrainingFeatures(**tensors, shift=augmented.shift) if self.training else Features(**tensors)

    def _stored(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor on the device and in the precision for storage."""
        small = self.half and name in ("units", "mel", "aug_mel")
        return tensor.to(self.device, torch.float16 if small else torch.float32).contiguous()

    def _speaker(self, path: Path) -> int:
        """Return the clip's speaker id; 0 in a model with one speaker."""
        model = self.config.model
        if model.n_spk == 1:
            return 0
        number = speaker_id(path, self.config.spk)
        if not 0 <= number < model.n_spk:
            raise UserError(
                f"the diffusion configuration gives speaker '{path.parent.name}' the number {number}, outside 0 to "
                f"{model.n_spk - 1} (model.n_spk); run 'python preprocess_flist_config.py' again"
            )
        return number


def samples_of(path: Path) -> int:
    """Return the length of a sound file, in samples."""
    with open_audio(path) as file:
        return file.frames


def collate_diffusion(items: Sequence[DiffusionBatch | UserError]) -> DiffusionBatch | UserError:
    """Concatenate items of one length to a batch; returns the first error if an item is one."""
    for item in items:
        if isinstance(item, UserError):
            return item
    return DiffusionBatch(*(torch.cat([getattr(item, f.name) for item in items]) for f in fields(DiffusionBatch)))
