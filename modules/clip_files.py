"""The files beside a clip: their names, containers, shapes, and how they line up in time.

A clip ``X.wav`` of L samples has T = L // hop_length frames. Beside it lie

    X.wav.soft.pt   content units      (1, C, N) float32, N at the speech encoder's own rate
    X.wav.f0.npy    F0 and voicing     (2, T) float32: Hz, interpolated through unvoiced frames; 1 = voiced
    X.spec.pt       linear spectrogram (filter_length // 2 + 1, T) float32
    X.wav.vol.npy   volume             (T,) float32
    X.wav.meta.json what the others were made from (preparation/fingerprints.py)

The first four are the published formats and load in so-vits-svc 4.1. Its own ``.f0.npy`` is a pickled object array of
the same two rows; it is read here too, by a reader that can run no code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modules.atomic_file import output_path
from modules.console import UserError

if TYPE_CHECKING:  # torch is imported where it is used: the stages that only handle files start without it
    from torch import Tensor

SHORTEST_CLIP = 0.3  # seconds; shorter clips take no part in training
MAKER = "python preprocess_hubert_f0.py"


def frames(samples: int, hop_length: int) -> int:
    """How many frames each per-frame companion of a clip of ``samples`` has."""
    return samples // hop_length


def find_clips(folder: str | Path) -> dict[str, list[Path]]:
    """Speaker name -> the ``.wav`` files of that speaker's folder, both in alphabetical order.

    Hidden names, plain files beside the speakers' folders and files that are not ``.wav`` are passed over.
    Raises UserError when there is no such folder, or no speaker in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; 'python resample.py' makes it from dataset_raw/<speaker>/*.wav")
    speakers = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not speakers:
        raise UserError(f"{folder} holds no speaker's folder; put clips at dataset_raw/<speaker>/ and run resample.py")
    return {speaker.name: sorted(clip for clip in speaker.iterdir() if _is_clip(clip)) for speaker in speakers}


def _is_clip(path: Path) -> bool:
    """Whether a file in a speaker's folder is a clip by its name."""
    return path.name.endswith(".wav") and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class ClipFiles:
    """The companions of one clip. Readers raise UserError naming the file and how to make it anew; writers raise
    UserError when a value is not finite or the file cannot be written, and leave a former one as it was then."""

    wav: Path

    @property
    def units(self) -> Path:
        return self._beside(".soft.pt")

    @property
    def f0(self) -> Path:
        return self._beside(".f0.npy")

    @property
    def spec(self) -> Path:
        return self.wav.with_suffix(".spec.pt")

    @property
    def volume(self) -> Path:
        return self._beside(".vol.npy")

    @property
    def mel(self) -> Path:
        return self._beside(".mel.npy")

    @property
    def aug_mel(self) -> Path:
        return self._beside(".aug_mel.npy")

    @property
    def aug_volume(self) -> Path:
        return self._beside(".aug_vol.npy")

    @property
    def fingerprint(self) -> Path:
        return self._beside(".meta.json")

    def _beside(self, ending: str) -> Path:
        return self.wav.with_name(self.wav.name + ending)

    def read_units(self) -> Tensor:
        """Content units (1, C, N) float32."""
        return _read_tensor(self.units, dimensions=3)

    def write_units(self, units: Tensor) -> None:
        _write_tensor(self.units, units, dimensions=3)

    def read_spec(self) -> Tensor:
        """Linear magnitude spectrogram (filter_length // 2 + 1, T) float32."""
        return _read_tensor(self.spec, dimensions=2)

    def write_spec(self, spec: Tensor) -> None:
        _write_tensor(self.spec, spec, dimensions=2)

    def read_f0(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """F0 (T,) in Hz and voicing (T,), 1 = voiced; reads the original's pickled array as well."""
        rows = _read_array(self.f0)
        try:
            f0, uv = (np.asarray(row, dtype=np.float32) for row in rows)
        except (TypeError, ValueError):
            raise _unusable(self.f0, f"an array of shape {rows.shape} where two rows of numbers are expected") from None
        if f0.ndim != 1 or f0.shape != uv.shape:
            raise _unusable(self.f0, f"rows of shapes {f0.shape} and {uv.shape} where (frames,) twice is expected")
        return f0, uv

    def write_f0(self, f0: NDArray, uv: NDArray) -> None:
        _write_array(self.f0, np.stack([f0, uv]))

    def read_volume(self) -> NDArray[np.float32]:
        """Volume (T,) float32."""
        volume = _read_array(self.volume)
        if volume.ndim != 1 or volume.dtype == object:
            raise _unusable(self.volume, f"an array of shape {volume.shape} where (frames,) is expected")
        return volume.astype(np.float32, copy=False)

    def write_volume(self, volume: NDArray | Tensor) -> None:
        _write_array(self.volume, np.asarray(volume))


def _read_tensor(path: Path, dimensions: int) -> Tensor:
    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; '{MAKER}' makes it") from None
    except Exception as error:  # a damaged file shows itself as almost anything: EOFError, KeyError, RuntimeError
        raise _unusable(path, f"no readable tensor ({type(error).__name__})") from error
    if not isinstance(tensor, torch.Tensor):
        raise _unusable(path, f"a {type(tensor).__name__} where a tensor is expected")
    if tensor.dim() != dimensions:
        raise _unusable(path, f"a tensor of shape {tuple(tensor.shape)} where {dimensions} dimensions are expected")
    return tensor.float()


def _write_tensor(path: Path, tensor: Tensor, dimensions: int) -> None:
    import torch

    if tensor.dim() != dimensions:
        raise ValueError(f"{path.name} takes {dimensions} dimensions, not {tuple(tensor.shape)}")
    tensor = tensor.detach().to("cpu", torch.float32).contiguous().clone()
    _refuse_non_finite(path, bool(torch.isfinite(tensor).all()))
    with output_path(path, RuntimeError) as temporary, open(temporary, "wb") as file:
        torch.save(tensor, file)  # through a handle: given a path, torch writes its random name into the file


def _read_array(path: Path) -> NDArray[Any]:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; '{MAKER}' makes it") from None
    except OSError as error:
        raise _unusable(path, f"no readable array ({error})") from None
    except (ValueError, EOFError):
        from modules.safe_pickle import load_object_array

        return load_object_array(path)


def _write_array(path: Path, array: NDArray) -> None:
    array = np.ascontiguousarray(array, dtype=np.float32)
    _refuse_non_finite(path, bool(np.isfinite(array).all()))
    with output_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def _refuse_non_finite(path: Path, finite: bool) -> None:
    if not finite:
        raise UserError(f"{path} would hold values that are not finite, so it was not written")


def _unusable(path: Path, found: str) -> UserError:
    return UserError(f"{path} holds {found}; delete it and run '{MAKER}'")


# -- lining up in time ------------------------------------------------------------------------------------------------


def stretch_units(units: Tensor, length: int, mode: str) -> Tensor:
    """Bring content units (C, N) to ``length`` frames: (C, length).

    ``left`` holds each of the N source frames until the next one is due and never skips one (the first ``length``
    frames when shrinking), as 4.0 models were trained; the others are modes of torch.nn.functional.interpolate:
    ``nearest``, ``nearest-exact``, ``linear``, ``area``.
    """
    import torch

    if mode != "left":
        return torch.nn.functional.interpolate(units[None], size=length, mode=mode)[0]
    source = units.shape[-1]
    # A step takes one source frame at most, hence the running minimum. Boundaries in float32, as the original rounds.
    boundaries = torch.arange(1, source + 1) * length / source
    target = torch.arange(length)
    due = torch.searchsorted(boundaries, target.to(boundaries.dtype), right=True)
    index = target + torch.cummin(due - target, dim=0).values
    return units[:, index.to(units.device)]


@dataclass
class Clip:
    """What training needs of one clip: ``units`` (C, T), ``f0`` and ``uv`` (T,), ``spec`` (F, T), ``audio``
    (hop_length * T,) and ``volume`` (T,) or None."""

    units: Tensor
    f0: Tensor
    uv: Tensor
    spec: Tensor
    audio: Tensor
    volume: Tensor | None = None


def align(clip: Clip, hop_length: int, name: str | Path) -> Clip:
    """Cut everything to the frames that all have.

    Raises UserError naming the clip when lengths lie 3 frames or more apart: then they are of different audio.
    """
    per_frame = {
        part.name: getattr(clip, part.name)
        for part in dataclasses.fields(clip)
        if part.name != "audio" and getattr(clip, part.name) is not None
    }
    lengths = {part: value.shape[-1] for part, value in per_frame.items()}
    common, samples = min(lengths.values()), clip.audio.shape[-1]
    if max(lengths.values()) - common >= 3 or abs(samples - common * hop_length) >= 3 * hop_length:
        found = ", ".join(f"{part} {length}" for part, length in lengths.items())
        raise UserError(f"{name}: {samples} samples beside files of other audio (frames: {found}); run '{MAKER}'")
    common = min(common, frames(samples, hop_length))
    cut = {part: value[..., :common] for part, value in per_frame.items()}
    return Clip(**cut, audio=clip.audio[..., : common * hop_length])
