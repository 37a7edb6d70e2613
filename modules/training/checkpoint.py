"""Checkpoint files: read safely, written whole or not at all, and what a run has saved at one step of it.

Which files that are is in vits/checkpoints.py and diffusion/checkpoints.py.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from modules import temporary_file
from modules.console import UserError, get_logger, short_repr
from modules.memory import is_lack_of_memory
from modules.training.saving import delete_together, delete_unfinished, save_together
from modules.untrusted.torch_file import load_torch
from modules.untrusted.truncation import is_truncated
from modules.weights.safetensors_file import SUFFIX, read_safetensors

log = get_logger("checkpoint")


MOST_STEPS = 1 << 53  # or epochs, beyond which a float does not count


class Truncated(UserError):
    """A file that ends before its data does, as a kill or a full disk leave one."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint dictionary onto the CPU, running no code of the file's; weights in safetensors are its model.

    Memory is in proportion to the file's size, see ``load_torch``. Raises Truncated when the file ends early, and
    UserError when it is missing, of another kind, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if path.suffix == SUFFIX:
        return {"model": read_safetensors(path)}
    try:
        checkpoint = load_torch(path, weights_only=True)
    except (MemoryError, OSError):
        raise  # no fault of the file's
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, KeyError ... for broken files
        if is_lack_of_memory(error):
            raise MemoryError(f"{path} does not fit into the memory that is left") from error
        raise _unreadable(path, error) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint dictionary")
    return checkpoint


def _unreadable(path: Path, error: Exception) -> UserError:
    """The sentence about a file for which ``torch.load`` raised ``error``: which kind of fault it is, and the cure."""
    start = f"{path} ({path.stat().st_size:,} bytes) cannot be read as a checkpoint"
    if is_truncated(path, error):
        return Truncated(f"{start}; it is truncated")
    found = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if found:
        return UserError(
            f"{start}: it holds more than tensors ({found[1]}), which could run code; ask for its weights in a file of "
            f"tensors, or, if you trust it, write them to one with torch.save or as {SUFFIX}"
        )
    reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
    return UserError(
        f"{start} by PyTorch {torch.__version__} ({reason}); it is damaged, of another kind, or of a newer PyTorch: "
        "update PyTorch, or fetch the file again"
    )


def load_base_model(path: Path) -> dict[str, Any]:
    """Read a base model: a checkpoint, or a bare state dict as its ``model``. Raises UserError as load_checkpoint does,
    and when there are no weights; the file is the user's, and stays."""
    try:
        content = load_checkpoint(path)
        if content and all(is_dense(value) for value in content.values()):
            content = {"model": content}
        model_of(content, path)
    except UserError as error:
        raise UserError(f"{error}; training does not begin without its base model: replace or remove it") from error
    return content


def base_file(path: Path) -> Path:
    """Where a base model lies: ``path``, or the file of that name in safetensors if only that is there."""
    other = path.with_suffix(SUFFIX)
    return other if other.exists() and not path.exists() else path


def is_dense(value: Any) -> bool:
    """Whether ``value`` is a tensor with a number in memory for each place: not sparse, nested or without content."""
    return (
        isinstance(value, torch.Tensor)
        and not value.is_nested
        and value.layout is torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def model_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict inside a checkpoint. Raises UserError when there is none."""
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"{path} holds no 'model': it is no checkpoint of a network")
    return checkpoint["model"]


def whole_number(content: dict[str, Any], name: str, path: str | Path, default: int | None = None) -> int:
    """A count that a checkpoint holds under ``name``. Raises UserError when it is none, or not there."""
    value = content.get(name, default)
    if not isinstance(value, int | float) or not 0 <= value < MOST_STEPS:
        raise UserError(f"{path} is damaged: its {name} is {short_repr(value)} and should be a count; move it away")
    return int(value)


def load_weights(
    module: nn.Module, state: dict[str, torch.Tensor], where: str | Path, config: str = "config.json"
) -> None:
    """Load a state dict that must fit. Raises UserError as ``refuse_misfit``."""
    refuse_misfit(module, state, where, config)
    module.load_state_dict(state, strict=False)


def refuse_misfit(
    module: nn.Module, state: dict[str, torch.Tensor], where: str | Path, config: str = "config.json"
) -> None:
    """Raise UserError, naming the first differing names and shapes, when a state dict is not a module's own.

    ``where`` and ``config`` are what the sentence calls the file and the configuration beside it.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state]
    unknown = [k for k in state if k not in own]
    no_tensors = [f"{k} is no dense tensor in the file" for k in own if k in state and not is_dense(state[k])]
    reshaped = [
        f"{k} is {list(state[k].shape)} in the file and {list(own[k].shape)} by the config"
        for k in own
        if is_dense(state.get(k)) and own[k].shape != state[k].shape
    ]
    complaints = no_tensors + reshaped + [f"{k} is not in the file" for k in missing]
    complaints += [f"{k} is not in the config's model" for k in unknown]
    if complaints:
        more = f" (and {len(complaints) - 3} more)" if len(complaints) > 3 else ""
        raise UserError(f"{where} does not match its {config}: {'; '.join(complaints[:3])}{more}")


def load_base_weights(module: nn.Module, state: dict[str, torch.Tensor], where: str | Path) -> list[str]:
    """Take from a base model every tensor whose name and shape fit; the rest keeps its fresh values.

    Returns the names not taken (the speaker table nearly always). Raises UserError when less than half of the model's
    tensors fit: then the file is the base of another configuration.
    """
    own = module.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and is_dense(v) and own[k].shape == v.shape}
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
    save_together([Path(path)], [content], mark=temporary_file.MARK)


@dataclass(frozen=True)
class Saved:
    """The files of one step. ``step`` is the number in their names; 0 is a base model, whose files are the user's:
    they are read, and never written, renamed or deleted."""

    folder: Path
    step: int

    STATE: ClassVar[str]  # the name of the extra state, its number in brackets

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the step, the extra state last."""
        raise NotImplementedError

    def read(self) -> tuple[dict | None, ...]:
        """The contents of the files, in their order. Raises Truncated, or UserError when one is not as it must be."""
        raise NotImplementedError

    def is_passing(self) -> bool:
        """Whether this was saved by the clock, to be there until something newer is."""
        return self.step > 0 and bool(self.extra_state().get("passing"))

    def extra_state(self) -> dict[str, Any]:
        """The content of the extra state, nothing where there is none or it cannot be read."""
        with contextlib.suppress(UserError):
            return load_checkpoint(self.files[-1])
        return {}

    def write(self, *contents: dict[str, Any]) -> None:
        """Write the files, all of them whole, and read them back; then everything before them may go.

        Reading back takes 1.4 to 2.4 s of processor time for the 1.2 GB of the default model, beside 3.4 s for writing.
        It finds what a full or remote disk has lost before older checkpoints are deleted.

        Raises UserError when there is no room or they are not what was written; all that was there before stays.
        """
        for path in (*self.leftovers(), *self._lone_states()):
            path.unlink(missing_ok=True)
            log.debug("deleted %s of a save or a deletion that was cut off", path)
        delete_unfinished(self.folder)
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

    def leftovers(self) -> list[Path]:
        """The models that a kill has left without the others of their step."""
        return []

    def _lone_states(self) -> list[Path]:
        """The extra states of the folder without their models: of a save or a deletion that was cut off."""
        found = [(path, re.fullmatch(self.STATE, path.name)) for path in self.folder.glob("*state*.pth")]
        steps = [(path, type(self)(self.folder, int(match[1]))) for path, match in found if match and int(match[1])]
        return [path for path, saved in steps if not all(file.exists() for file in saved.files)]

    def read_state(self) -> dict[str, Any] | None:
        """The extra state; None where another program wrote the checkpoint, or where the state is truncated.

        A truncated one is set aside with a warning: the weights are worth more than an exact resume.
        """
        state = self.files[-1]
        try:
            return load_checkpoint(state) if state.exists() else None
        except Truncated as error:
            log.warning("%s; going on with the weights of %s alone", error, self.files[0].name)
            _set_aside(state)
            return None

    def delete(self) -> None:
        delete_together(self.files)

    def set_aside(self) -> None:
        """Rename the files to ``*.broken``: out of the way of later saves, deletions and conversions, but not lost."""
        for path in self.files:
            _set_aside(path)

    def set_aside_truncated(self) -> None:
        """Rename the truncated ones of the files so, and no whole one."""
        for path in self.files:
            try:
                load_checkpoint(path)
            except Truncated:
                _set_aside(path)
            except UserError:
                pass


def _set_aside(path: Path) -> None:
    if path.exists():
        path.replace(set_aside_name(path))


def set_aside_name(path: Path) -> Path:
    """Return the name that a truncated file gets."""
    return path.with_name(f"{path.name}.broken")


def newest_whole(folder: str | Path, there: Sequence[Saved]) -> tuple[Saved, tuple] | None:
    """The first of ``there``, the newest first, that is not truncated, and its contents.

    Raises UserError when all are, and when one cannot be read though it is whole: its owner decides what becomes of it.
    """
    for saved in there:
        if saved.step == 0:
            return saved, saved.read()
        try:
            return saved, saved.read()
        except Truncated as error:
            log.warning("%s; passing it over for the one before and renaming what is truncated to *.broken", error)
            saved.set_aside_truncated()
        except UserError as error:
            raise UserError(f"{error}; it stays where it is: move it away to go on without it") from error
    if there:
        raise UserError(f"no checkpoint in {folder} can be read (see *.broken); run the same command to begin anew")
    return None
