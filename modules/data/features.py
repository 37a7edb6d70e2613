"""The files beside a clip: their names, formats, shapes, and alignment in time.

A clip ``X.wav`` of L samples has T = L // hop_length frames. Its files are

    X.wav.soft.pt   content units      (1, C, N) float32, N at the speech encoder's own rate
    X.wav.f0.npy    F0 and voicing     (2, T) float32: Hz, interpolated across unvoiced frames; 1 = voiced
    X.spec.pt       linear spectrogram (filter_length // 2 + 1, T) float32
    X.wav.vol.npy   volume             (T,) float32
    X.wav.mel.npy   the vocoder's mel  (T, M) float32
    X.wav.aug_mel.npy  the augmented mel (T, M), at another loudness and pitch, and its shift in semitones: a pickled
                    object array of the two
    X.wav.aug_vol.npy  volume at the augmented loudness (T,) float32
    X.wav.meta.json what the others were made from (preparation/fingerprints.py)
    X.wav.f0.edited.npy  an F0 that may have been edited by hand and no longer fits the clip

The files that so-vits-svc 4.1 also has are in its formats and load there. Its ``.f0.npy`` is a pickled object array of
the same two rows, which is read here too. Earlier versions of this program wrote only the mel to ``.aug_mel.npy`` and
the shift, () float32, to ``X.wav.aug_shift.npy``; these are read as well. Reading a pickle here cannot run code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modules.atomic_file import output_path, output_paths
from modules.console import UserError
from modules.data.file_name import length_flaw, list_flaw
from modules.untrusted.array_pickle import read_header, write_mel_and_shift

if TYPE_CHECKING:  # imported where it is used, so that stages that only handle files start without torch
    from torch import Tensor

SHORTEST_CLIP = 0.3  # seconds; shorter clips are not used for training
MAKER = "python preprocess_hubert_f0.py"
DIFFUSION_MAKER = f"{MAKER} --use_diff"
DIFFUSION_ENDINGS = (".mel.npy", ".aug_mel.npy", ".aug_vol.npy", ".aug_shift.npy")
SIDECARS = ("units", "f0", "spec", "volume", "mel", "augmented")
AUGMENTED = ("aug_mel", "aug_volume")
LONGEST_ENDING = ".f0.edited.npy"  # of the files beside a clip, whose name must leave room for it


def frames(samples: int, hop_length: int) -> int:
    """Return the number of frames of a clip of ``samples``."""
    return samples // hop_length


def find_clips(folder: str | Path) -> dict[str, list[Path]]:
    """Return the ``.wav`` files of each speaker's folder by speaker name, both in alphabetical order.

    Hidden names, files beside the speakers' folders and files that are not ``.wav`` are skipped.
    Raises UserError when the folder is missing or holds no speaker.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; 'python resample.py' makes it from dataset_raw/<speaker>/*.wav")
    speakers = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not speakers:
        raise UserError(f"{folder} holds no speaker's folder; put clips at dataset_raw/<speaker>/ and run resample.py")
    return {speaker.name: sorted(clip for clip in speaker.iterdir() if _is_clip(clip)) for speaker in speakers}


def clip_flaw(name: str) -> str | None:
    """Return why a clip cannot be named ``name`` (``X.wav``) in every stage, as a clause; None if it can."""
    return list_flaw(name) or length_flaw(name, LONGEST_ENDING)


def _is_clip(path: Path) -> bool:
    """Return whether a file in a speaker's folder is a clip, by its name."""
    return path.name.endswith(".wav") and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class Augmented:
    """An augmented clip for diffusion: ``mel`` (T, M), shifted by ``shift`` semitones, and ``volume`` (T,)."""

    mel: NDArray[np.float32]
    volume: NDArray[np.float32]
    shift: float


@dataclass(frozen=True)
class ClipFiles:
    """The sidecar files of one clip.

    Readers raise UserError naming the file and the command that makes it again. Writers raise UserError when a value is
    not finite or the file cannot be written; an existing file then stays unchanged.
    """

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
    def aug_shift(self) -> Path:
        return self._beside(".aug_shift.npy")

    @property
    def fingerprint(self) -> Path:
        return self._beside(".meta.json")

    @property
    def edited_f0(self) -> Path:
        """Path for an F0 that was edited by hand and no longer fits the clip."""
        return self._beside(LONGEST_ENDING)

    @property
    def beside(self) -> tuple[Path, ...]:
        """All files that may exist beside the clip."""
        made = (self.units, self.f0, self.spec, self.volume, self.mel, self.aug_mel, self.aug_volume, self.aug_shift)
        return *made, self.fingerprint, self.edited_f0

    def _beside(self, ending: str) -> Path:
        return self.wav.with_name(self.wav.name + ending)

    def paths(self, sidecar: str) -> tuple[Path, ...]:
        """Return the files of one kind of sidecar: two for ``augmented``, one for the others."""
        return tuple(getattr(self, name) for name in (AUGMENTED if sidecar == "augmented" else (sidecar,)))

    def read_units(self, features: int | None = None) -> Tensor:
        """Read content units (1, C, N) float32. Raises UserError also when C is not ``features``, if that is given."""
        units = _read_tensor(self.units, dimensions=3)
        if features not in (None, units.shape[1]):
            raise UserError(
                f"{self.units} has {units.shape[1]} features and the config's speech encoder gives {features}; it was "
                f"made with another one: run '{MAKER}' again"
            )
        return units

    def write_units(self, units: Tensor) -> None:
        _write_tensor(self.units, units, dimensions=3)

    def read_spec(self) -> Tensor:
        """Read the linear magnitude spectrogram (filter_length // 2 + 1, T) float32."""
        return _read_tensor(self.spec, dimensions=2)

    def write_spec(self, spec: Tensor) -> None:
        _write_tensor(self.spec, spec, dimensions=2)

    def read_f0(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Read F0 (T,) in Hz and voicing (T,), 1 = voiced, from either format."""
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
        """Read the volume (T,) float32."""
        return _numbers(_read_array(self.volume), self.volume, "frames")

    def write_volume(self, volume: NDArray | Tensor) -> None:
        _write_array(self.volume, np.asarray(volume))

    def read_mel(self, n_mels: int | None = None) -> NDArray[np.float32]:
        """Read the vocoder's mel (T, M) float32. Raises UserError also when M is not ``n_mels``, if that is given."""
        return _mel(_read_array(self.mel), self.mel, n_mels)

    def write_mel(self, mel: NDArray | Tensor) -> None:
        _write_array(self.mel, np.asarray(mel))

    def read_augmented(self, n_mels: int | None = None) -> Augmented:
        """Read the augmented mel, volume and shift; errors as in read_mel."""
        pair = _read_array(self.aug_mel)
        if pair.dtype == object and pair.shape == (2,):
            mel, shift = map(np.asarray, pair)
        else:
            mel, shift = pair, _read_array(self.aug_shift)
        return Augmented(
            mel=_mel(mel, self.aug_mel, n_mels),
            volume=_numbers(_read_array(self.aug_volume), self.aug_volume, "frames"),
            shift=float(_numbers(shift, self.aug_shift if mel is pair else self.aug_mel)),
        )

    def write_augmented(self, augmented: Augmented) -> None:
        """Write both files together. After an interruption readers find both old files, both new ones, or no mel."""
        mel, shift = _float32(self.aug_mel, augmented.mel), float(_float32(self.aug_mel, augmented.shift))
        with output_paths(self.aug_volume, self.aug_mel) as (volume_file, mel_file):
            _save_array(self.aug_volume, augmented.volume, volume_file)
            with open(mel_file, "wb") as file:
                write_mel_and_shift(file, mel, shift)
            self.aug_mel.unlink(missing_ok=True)
        self.aug_shift.unlink(missing_ok=True)


def _read_tensor(path: Path, dimensions: int) -> Tensor:
    """Read a tensor, in memory of about three times the file's size."""
    import torch

    from modules.untrusted.torch_file import load_torch

    try:
        tensor = load_torch(path, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; '{MAKER}' makes it") from None
    except Exception as error:  # a damaged file raises almost anything: EOFError, KeyError, RuntimeError
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
    """Read an array. Arrays of numbers are read without PyTorch, in memory of the file's size."""
    try:
        with open(path, "rb") as file:
            array = read_header(file)[1]
    except FileNotFoundError:
        raise UserError(f"there is no {path}; '{_maker(path)}' makes it") from None
    except OSError as error:
        raise _unusable(path, f"no readable array ({error})") from None
    except Exception:  # numpy's reader of headers raises almost anything: ValueError, TokenError, RecursionError
        array = None
    if array is None:
        from modules.untrusted.safe_pickle import load_object_array

        return load_object_array(path)
    return array


def _numbers(array: NDArray, path: Path, *dimensions: str) -> NDArray[np.float32]:
    """Return the array as float32. Raises UserError unless it holds numbers and has these dimensions."""
    if array.ndim != len(dimensions) or array.dtype.kind not in "fiu":
        wanted = ", ".join(dimensions) + ("," if len(dimensions) == 1 else "")
        raise _unusable(path, f"an array of shape {array.shape} where ({wanted}) is expected")
    return array.astype(np.float32, copy=False)


def _mel(array: NDArray, path: Path, n_mels: int | None) -> NDArray[np.float32]:
    mel = _numbers(array, path, "frames", "bins")
    if n_mels not in (None, mel.shape[1]):
        raise UserError(f"{path} has {mel.shape[1]} bins and the vocoder {n_mels}; run '{DIFFUSION_MAKER}' again")
    return mel


def _write_array(path: Path, array: NDArray) -> None:
    with output_path(path) as temporary:
        _save_array(path, array, temporary)


def _save_array(path: Path, array: NDArray, temporary: Path) -> None:
    np.save(temporary, _float32(path, array), allow_pickle=False)


def _float32(path: Path, values: NDArray | float) -> NDArray[np.float32]:
    """Return the values as float32. Raises UserError naming ``path`` when one is not finite."""
    array = np.asarray(values, dtype=np.float32, order="C")
    _refuse_non_finite(path, bool(np.isfinite(array).all()))
    return array


def _refuse_non_finite(path: Path, finite: bool) -> None:
    if not finite:
        raise UserError(f"{path} would hold values that are not finite, so it was not written")


def _unusable(path: Path, found: str) -> UserError:
    return UserError(f"{path} holds {found}; delete it and run '{_maker(path)}'")


def _maker(path: Path) -> str:
    return DIFFUSION_MAKER if path.name.endswith(DIFFUSION_ENDINGS) else MAKER


# -- alignment in time ------------------------------------------------------------------------------------------------


def stretch_units(units: Tensor, length: int, mode: str) -> Tensor:
    """Resample content units (C, N) to ``length`` frames: (C, length).

    ``left`` repeats each of the N source frames until the next one is due and never skips one (when shrinking it takes
    the first ``length`` frames), as in the training of 4.0 models. The others are modes of
    torch.nn.functional.interpolate: ``nearest``, ``nearest-exact``, ``linear``, ``area``.
    """
    import torch

    if mode != "left":
        return torch.nn.functional.interpolate(units[None], size=length, mode=mode)[0]
    source = units.shape[-1]
    # Each step advances by at most one source frame, hence the running minimum. Float32, to round as the original does.
    boundaries = torch.arange(1, source + 1) * length / source
    target = torch.arange(length)
    due = torch.searchsorted(boundaries, target.to(boundaries.dtype), right=True)
    index = target + torch.cummin(due - target, dim=0).values
    return units.index_select(1, index.to(units.device))


@dataclass
class Clip:
    """Training data of one clip: ``units`` (C, T), ``f0`` and ``uv`` (T,), ``spec`` (F, T), ``audio``
    (hop_length * T,) and ``volume`` (T,) or None."""

    units: Tensor
    f0: Tensor
    uv: Tensor
    spec: Tensor
    audio: Tensor
    volume: Tensor | None = None


def align(clip: Clip, hop_length: int, name: str | Path) -> Clip:
    """Cut all parts to their common frames. Raises UserError as common_frames does."""
    per_frame = {
        part.name: getattr(clip, part.name)
        for part in dataclasses.fields(clip)
        if part.name != "audio" and getattr(clip, part.name) is not None
    }
    lengths = {part: value.shape[-1] for part, value in per_frame.items()}
    common = common_frames({"audio": frames(clip.audio.shape[-1], hop_length), **lengths}, name)
    cut = {part: value[..., :common] for part, value in per_frame.items()}
    return Clip(**cut, audio=clip.audio[..., : common * hop_length])


def common_frames(lengths: Mapping[str, int], name: str | Path, maker: str = MAKER) -> int:
    """Return the number of frames that all parts of a clip have.

    Raises UserError naming the clip when lengths differ by 3 frames or more: then the parts are of different audio.
    """
    common = min(lengths.values())
    if max(lengths.values()) - common >= 3:
        found = ", ".join(f"{part} {length}" for part, length in lengths.items())
        raise UserError(f"{name} has files of other audio beside it (frames: {found}); run '{maker}' again")
    return common
