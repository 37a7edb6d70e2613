"""Checkpoint files: read safely, written whole or not at all, and what a run has saved at one step of it.

Which files that are is in vits/checkpoints.py and diffusion/checkpoints.py.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from modules.console import UserError, get_logger
from modules.memory import is_lack_of_memory
from modules.safetensors_file import SUFFIX, read_safetensors
from modules.saving import delete_unfinished, save_together, unfinished, unfinished_name
from modules.weight_file import read_weight_file

log = get_logger("checkpoint")


class TruncatedFile(UserError):
    """A file that ends before its content does, as a full disk or a power failure leaves it."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint dictionary onto the CPU, running no code of the file's; weights in safetensors are its model.

    Raises TruncatedFile when the file is, and UserError when it is missing or holds anything but tensors and plain
    values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if path.suffix == SUFFIX:
        return {"model": read_safetensors(path)}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise  # no fault of the file's
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, KeyError ... for broken files
        if is_lack_of_memory(error):
            raise MemoryError(f"{path} does not fit into the memory that is left") from error
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        size = f"{path} ({path.stat().st_size:,} bytes)"
        if _is_truncated(path, error):
            raise TruncatedFile(f"{size} cannot be read as a checkpoint; it is truncated ({reason})") from error
        raise UserError(
            f"{size} cannot be read as a checkpoint; it is of another kind, damaged, of a newer PyTorch, or holds more "
            f"than tensors ({reason})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint dictionary")
    return checkpoint


def _is_truncated(path: Path, error: Exception) -> bool:
    """Return whether a file that torch cannot read is empty, unwritten (zeros) or ends too early."""
    with open(path, "rb") as file:
        start = file.read(4096)
    if not start.strip(b"\0"):
        return True
    if start.startswith(b"PK\x03\x04"):  # a zip archive, whose table of contents is at the end
        return not zipfile.is_zipfile(path)
    return isinstance(error, EOFError) or "truncated" in str(error) or "unexpected EOF" in str(error)


def model_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict inside a checkpoint. Raises UserError when there is none."""
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"{path} holds no 'model': it is no checkpoint of a network")
    return checkpoint["model"]


def load_weights(
    module: nn.Module, state: dict[str, torch.Tensor], where: str | Path, config: str = "config.json"
) -> None:
    """Load a state dict that must fit. Raises UserError naming the first differing names and shapes.

    ``where`` and ``config`` are what the sentence calls the file and the configuration beside it.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    unknown = [k for k in state if k not in own]
    reshaped = [
        f"{k} is {list(state[k].shape)} in the file and {list(own[k].shape)} by the config"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    complaints = (
        reshaped + [f"{k} is not in the file" for k in missing] + [f"{k} is not in the config's model" for k in unknown]
    )
    if complaints:
        more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
        raise UserError(f"{where} does not match its {config}: {'; '.join(complaints[:3])}{more}")
    module.load_state_dict(state, strict=False)


def load_base_weights(module: nn.Module, state: dict[str, torch.Tensor], where: str | Path) -> list[str]:
    """Take from a base model every tensor whose name and shape fit; the rest keeps its fresh values.

    Returns the names not taken (the speaker table nearly always). Raises UserError when less than half of the model's
    tensors fit: then the file is the base of another configuration.
    """
    own = module.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    left = [k for k in own if k not in fitting]
    if len(fitting) < len(own) / 2:
        raise UserError(
            f"{where} is not a base model for this configuration: {len(left)} of {len(own)} tensors differ, first "
            f"{left[0]}; use the base model of this encoder and size, or move the file away"
        )
    module.load_state_dict(fitting, strict=False)
    if left:
        log.info("base model %s: %d tensors keep fresh values: %s", where, len(left), ", ".join(left[:5]))
    return left


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; a former file of that name stays whole if writing fails (UserError)."""
    if Path(path).suffix == SUFFIX:
        raise UserError(f"{path}: checkpoints are not written in that format; let the name end in .pth")
    save_together([Path(path)], [content])


@dataclass(frozen=True)
class Saved:
    """What a run wrote at one step; ``step`` is that of the file names, 0 a base model's."""

    folder: Path
    step: int

    STATE: ClassVar[str]  # the name of the extra state, its number in brackets

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the step, the extra state last."""
        raise NotImplementedError

    def read(self) -> tuple[dict | None, ...]:
        """The contents of the files, in their order. Raises UserError when one is broken."""
        raise NotImplementedError

    def recorded_step(self) -> int:
        """The step that the extra state names, which no renaming changes; that of the names where it names none."""
        with contextlib.suppress(TypeError, ValueError):
            return int(self.extra_state().get("step", self.step)) if self.step else 0
        return self.step

    def is_passing(self) -> bool:
        """Whether this was saved by the clock, to be there until something newer is."""
        return bool(self.extra_state().get("passing"))

    def extra_state(self) -> dict[str, Any]:
        """The content of the extra state, nothing where there is none or it cannot be read."""
        with contextlib.suppress(UserError):
            return load_checkpoint(self.files[-1])
        return {}

    def write(self, *contents: dict[str, Any]) -> None:
        """Write the files, all of them whole, and read them back; then everything before them may go.

        Raises UserError when there is no room or they are not what was written; all that was there before stays.
        """
        self._delete_cut_off()
        # The state first: a model without it would be taken for one of the original's.
        save_together(self.files[::-1], contents[::-1])
        try:
            for path in self.files:
                load_checkpoint(path)
        except UserError:
            self.set_aside()
            raise
        except (MemoryError, OSError) as error:
            raise UserError(f"{self.files[0]} is written, but could not be read back ({error})") from error

    def _delete_cut_off(self) -> None:
        """Delete what a save or a deletion left when it was killed between two files.

        Both leave a temporary file. Without one a lone file may be the user's, who has moved the other: it stays.
        """
        cut_off = bool(unfinished(self.folder))
        for path in self.folder.glob("*state*.pth"):
            if not (match := re.fullmatch(self.STATE, path.name)):
                continue
            saved = type(self)(self.folder, int(match[1]))
            there = [file for file in saved.files if file.exists()]
            if there == [path] or (cut_off and len(there) < len(saved.files)):
                for file in there:
                    file.unlink(missing_ok=True)
                    log.debug("deleted %s of a save that was cut off", file)
        delete_unfinished(self.folder)

    def read_state(self) -> dict[str, Any] | None:
        """The extra state; None where another program wrote the checkpoint, or where the state alone is broken.

        A broken one is set aside with a warning: the weights are worth more than an exact resume.
        """
        state = self.files[-1]
        try:
            return load_checkpoint(state) if state.exists() else None
        except UserError as error:
            log.warning("%s; going on with the weights of %s alone", error, self.files[0].name)
            _set_aside(state)
            return None

    def delete(self) -> None:
        """Delete the files. The first becomes a temporary file until the others are gone, see _delete_cut_off."""
        first, *others = self.files
        temporary = self.folder / unfinished_name(first)
        with contextlib.suppress(FileNotFoundError):
            first.replace(temporary)
        for path in (*others, temporary):
            path.unlink(missing_ok=True)

    def set_aside(self) -> None:
        """Rename the files to ``*.broken``: out of the way of later saves, deletions and conversions, but not lost."""
        for path in self.files:
            _set_aside(path)


def _set_aside(path: Path) -> None:
    if path.exists():
        path.replace(path.with_name(path.name + ".broken"))


def newest_whole(folder: str | Path, there: Sequence[Saved]) -> tuple[Saved, tuple] | None:
    """The first by recorded step that can be read whole, and its contents; the base model where there is no other.

    Truncated ones are renamed to ``*.broken`` with a warning. Raises UserError when a file is refused for another
    reason, or all are truncated. The files of step 0 belong to the user: they are never renamed.
    """
    base, run = ([saved for saved in there if (saved.step == 0) is is_base] for is_base in (True, False))
    for saved in sorted(run, key=Saved.recorded_step, reverse=True):
        try:
            return saved, saved.read()
        except TruncatedFile as error:
            log.warning("%s; passing it over for the one before and renaming its files to *.broken", error)
            saved.set_aside()
        except UserError as error:
            raise UserError(
                f"{error}. Nothing was changed; to go on from the checkpoint before, move the files of step "
                f"{saved.step} away"
            ) from error
    if run:
        raise UserError(f"no checkpoint in {folder} can be read (see *.broken); run the same command to begin anew")
    return (base[0], base[0].read()) if base else None


def base_file(path: Path) -> Path:
    """The file of a base model: ``path``, or the ``.safetensors`` of that name if only that exists."""
    other = path.with_suffix(SUFFIX)
    return other if other.exists() and not path.exists() else path


def read_base(path: Path, family: str) -> dict[str, Any]:
    """Read the base model ``path``: a checkpoint, a bare state dict or safetensors, of a ``family`` of weight files.

    Raises UserError when it cannot be read or is of another family.
    """
    return {"model": read_weight_file(path, family)}
