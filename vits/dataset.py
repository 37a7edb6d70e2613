"""Clips and their companion files as training batches.

Everything random about an item (which crop, which loudness) is a function of (seed, epoch, clip), so a resumed run sees
the very items the interrupted one would have seen, whatever the number of loader workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler

from modules.audio import open_audio, read_audio
from modules.clip_files import Clip, ClipFiles, align, stretch_units
from modules.config import Config
from modules.console import UserError, get_logger
from modules.registry import nearest_first
from modules.spectrogram import linear_spectrogram

log = get_logger("dataset")


@dataclass
class Item:
    """One clip with its companions, cut to the same T frames, and its speaker's id (1,)."""

    clip: Clip
    speaker_id: Tensor

    @property
    def frames(self) -> int:
        return self.clip.f0.shape[0]

    def crop(self, start: int, frames: int, hop_length: int) -> Item:
        cut = slice(start, start + frames)
        clip = Clip(
            units=self.clip.units[:, cut],
            f0=self.clip.f0[cut],
            uv=self.clip.uv[cut],
            spec=self.clip.spec[:, cut],
            audio=self.clip.audio[start * hop_length : (start + frames) * hop_length],
        )
        return Item(clip, self.speaker_id)


@dataclass
class Batch:
    """B items padded with zeros to the longest, the longest first.

    c (B, C, T), f0 (B, T), uv (B, T), spec (B, F, T), audio (B, 1, T * hop), speaker_id (B, 1), lengths in frames (B,).
    """

    c: Tensor
    f0: Tensor
    uv: Tensor
    spec: Tensor
    audio: Tensor
    speaker_id: Tensor
    lengths: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin_memory(self) -> Batch:
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))


class ClipDataset(Dataset):
    """The clips of a filelist with their companions, read when asked for or, with ``all_in_mem``, once.

    Indexed by (epoch, clip) pairs, as EpochBatches gives them.
    """

    def __init__(self, filelist: str | Path, config: Config, *, crop: bool):
        self.config = config
        self.crop_frames = config.train.crop_frames if crop else None
        self.paths = usable(read_filelist(filelist), config, config.train.segment_size if crop else 0)
        self.cache = [self.read(path) for path in self.paths] if config.train.all_in_mem else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Item | UserError:
        """The item, or the error that it met: raised in a loader's worker, it would arrive as a traceback."""
        epoch, index = key
        try:
            item = self.cache[index] if self.cache else self.read(self.paths[index])
        except UserError as error:
            return error
        # As published: only clips more than ten frames over the limit are cropped.
        if self.crop_frames is None or item.frames <= self.crop_frames + 10:
            return item
        generator = torch.Generator().manual_seed(hash((self.config.train.seed, epoch, index)) % 2**63)
        start = int(torch.randint(item.frames - self.crop_frames + 1, (1,), generator=generator))
        return item.crop(start, self.crop_frames, self.config.data.hop_length)

    def read(self, path: Path) -> Item:
        """Read one clip and its companions.

        Raises UserError naming the clip when a companion is missing, of another encoder, or out of step.
        """
        data, files = self.config.data, ClipFiles(path)
        audio = torch.from_numpy(read_audio(path)[0])
        f0, uv = map(torch.from_numpy, files.read_f0())
        units = files.read_units()[0]
        if units.shape[0] != self.config.model.ssl_dim:
            raise UserError(
                f"{files.units} has {units.shape[0]} features and the config's ssl_dim is {self.config.model.ssl_dim}; "
                "it was made with another speech encoder: run 'python preprocess_hubert_f0.py' again"
            )
        units = stretch_units(units, len(f0), data.unit_interpolate_mode)
        clip = Clip(units=units, f0=f0, uv=uv, spec=self.spectrogram(files, audio), audio=audio)
        return Item(align(clip, data.hop_length, path), self.speaker_id(path))

    def spectrogram(self, files: ClipFiles, audio: Tensor) -> Tensor:
        """The clip's linear spectrogram (F, T), from its companion or, where that is absent, computed and kept."""
        if files.spec.exists():
            return files.read_spec()
        data = self.config.data
        spec = linear_spectrogram(audio[None], data.filter_length, data.hop_length, data.win_length)[0]
        files.write_spec(spec)
        return spec

    def speaker_id(self, path: Path) -> Tensor:
        speakers = self.config.spk
        if path.parent.name not in speakers:
            known = ", ".join(nearest_first(path.parent.name, speakers))
            raise UserError(f"the folder of {path} is no speaker of the config (known: {known}); run stage 2 again")
        return torch.tensor([speakers[path.parent.name]])


def read_filelist(path: str | Path) -> list[Path]:
    """The clips of a filelist, one path a line. Raises UserError when it is missing, empty, or names missing files."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; run 'python preprocess_flist_config.py' again") from None
    except FileNotFoundError:
        raise UserError(f"there is no {path}; run 'python preprocess_flist_config.py' first") from None
    clips = [Path(line.split("|")[0].replace("\\", "/")) for line in lines if line.strip()]
    if not clips:
        raise UserError(f"{path} names no clip; run 'python preprocess_flist_config.py' again")
    absent = [clip for clip in clips if not clip.is_file()]
    if absent:
        raise UserError(
            f"{path} names {len(absent)} missing files, first {absent[0]}; "
            "run 'python preprocess_flist_config.py' again"
        )
    return clips


def usable(clips: Sequence[Path], config: Config, shortest: int) -> list[Path]:
    """The clips that can be read and have their companions, of at least ``shortest`` samples; the others are named.

    Raises UserError when none is left.
    """
    reasons = {clip: reason for clip in clips if (reason := why_not(clip, config.data.sampling_rate, shortest))}
    if len(reasons) == len(clips):
        raise UserError(f"none of the {len(clips)} clips can be used, the first because {next(iter(reasons.values()))}")
    for clip, reason in reasons.items():
        log.warning("%s is left out: %s", clip, reason)
    return [clip for clip in clips if clip not in reasons]


def why_not(clip: Path, sampling_rate: int, shortest: int) -> str | None:
    """Why a clip cannot be used, None when it can."""
    files = ClipFiles(clip)
    for path in (files.units, files.f0):
        if not path.exists():
            return f"there is no {path.name}; run 'python preprocess_hubert_f0.py' again and see what it says"
    try:
        with open_audio(clip) as file:
            rate, samples = file.samplerate, file.frames
    except UserError as error:
        return str(error)
    if rate != sampling_rate:
        return f"it has {rate} Hz and the config {sampling_rate}; run 'python resample.py' again"
    if samples < shortest:
        return f"it is shorter than a training slice, train.segment_size ({shortest} samples)"
    return None


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, clip): a new order each epoch, the same for the same seed, resumable at any batch."""

    def __init__(self, clips: int, batch_size: int, seed: int):
        self.clips, self.batch_size, self.seed = clips, batch_size, seed
        self.epoch, self.first_batch = 1, 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration gives: ``epoch``, from batch number ``first_batch`` on."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return -(-self.clips // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        order = torch.randperm(self.clips, generator=generator).tolist()
        for start in range(self.first_batch * self.batch_size, self.clips, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


def collate(items: Sequence[Item | UserError]) -> Batch | UserError:
    """Pad items to a batch; the first error among them stands for it."""
    for item in items:
        if isinstance(item, UserError):
            return item
    items = sorted(items, key=lambda item: item.frames, reverse=True)

    def padded(name: str) -> Tensor:  # pad_sequence pads the first dimension: time goes there and back
        return pad_sequence([getattr(item.clip, name).movedim(-1, 0) for item in items], batch_first=True).movedim(
            1, -1
        )

    return Batch(
        c=padded("units"),
        f0=padded("f0"),
        uv=padded("uv"),
        spec=padded("spec"),
        audio=padded("audio")[:, None],
        speaker_id=torch.stack([item.speaker_id for item in items]),
        lengths=torch.tensor([item.frames for item in items]),
    )
