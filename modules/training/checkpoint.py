"""Read checkpoint files safely, write them atomically, and handle the files that a run saves at one step.

vits/saved_models.py and diffusion/saved_models.py define which files these are.
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


WRAPPERS = "module.", "_orig_mod."  # prefixes of a saved DistributedDataParallel or torch.compile wrapper
MAX_COUNT = 1 << 53  # steps or epochs; beyond it a float cannot count


class Truncated(UserError):
    """A file that ends too early, after a kill or on a full disk for instance."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint dictionary onto the CPU without running code from the file. A safetensors file gives {model}.

    Memory use is proportional to the file's size, see ``load_torch``. Raises Truncated when the file ends early, and
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
        raise  # not the file's fault
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, KeyError ... for broken files
        if is_lack_of_memory(error):
            raise MemoryError(f"{path} does not fit into the memory that is left") from error
        raise _unreadable(path, error) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint dictionary")
    return checkpoint


def _unreadable(path: Path, error: Exception) -> UserError:
    """Return an error that explains why ``torch.load`` raised ``error``: the kind of fault, and what to do."""
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
    """Read a base model: a checkpoint, or a bare state dict, which becomes its ``model``.

    Raises UserError as load_checkpoint does, and when there are no weights. The file is the user's and is not changed.
    """
    try:
        content = load_checkpoint(path)
        if content and all(is_dense(value) for value in content.values()):
            content = {"model": content}
        model_of(content, path)
    except UserError as error:
        raise UserError(f"{error}; training does not begin without its base model: replace or remove it") from error
    return content


def base_file(path: Path) -> Path:
    """Return the path of a base model: ``path``, or the safetensors file of that name if only that exists."""
    other = path.with_suffix(SUFFIX)
    return other if other.exists() and not path.exists() else path


def is_dense(value: Any) -> bool:
    """Return whether ``value`` is a plain tensor in memory: not sparse, nested, quantized or on the meta device."""
    return (
        isinstance(value, torch.Tensor)
        and not value.is_nested
        and value.layout is torch.strided
        and not value.is_meta
        and not value.is_quantized
    )


def model_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict of a checkpoint after removing wrappers' prefixes from its names, in the checkpoint too.

    Raises UserError when there is none.
    """
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"{path} holds no 'model': it is no checkpoint of a network")
    state = checkpoint["model"]
    for prefix in WRAPPERS * 2:  # in either order
        if state and all(isinstance(name, str) and name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    checkpoint["model"] = state
    return state


def whole_number(content: dict[str, Any], name: str, path: str | Path, default: int | None = None) -> int:
    """Return the count that a checkpoint holds under ``name``. Raises UserError when it is missing or no count."""
    value = content.get(name, default)
    if not isinstance(value, int | float) or not 0 <= value < MAX_COUNT:
        raise UserError(f"{path} is damaged: its {name} is {short_repr(value)} and should be a count; move it away")
    return int(value)


def load_weights(
    module: nn.Module, state: dict[str, torch.Tensor], where: str | Path, config: str = "config.json"
) -> None:
    """Load a state dict that must fit the module. Raises UserError as ``refuse_misfit``."""
    refuse_misfit(module, state, where, config)
    module.load_state_dict(state, strict=False)


def refuse_misfit(
    module: nn.Module, state: dict[str, torch.Tensor], where: str | Path, config: str = "config.json"
) -> None:
    """Raise UserError with the first differing names and shapes, when a state dict does not fit a module.

    ``where`` and ``config`` name the file and its configuration in the message.
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
    """Load every tensor of a base model whose name and shape fit; the others keep their initial values.

    Returns the names not loaded (nearly always the speaker table). Raises UserError when less than half of the model's
    tensors fit, because then the file is the base model of another configuration.
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
    """Write a checkpoint. Raises UserError if that fails; a former file of that name then stays intact."""
    if Path(path).suffix == SUFFIX:
        raise UserError(f"{path}: checkpoints are not written in that format; let the name end in .pth")
    save_together([Path(path)], [content], mark=temporary_file.MARK)


@dataclass(frozen=True)
class SavedStep:
    """The files of one step. ``step`` is the number in their names.

    Step 0 is a base model. Its files are the user's: they are only read, and never written, renamed or deleted.
    """

    folder: Path
    step: int

    STATE: ClassVar[str]  # pattern of the extra state's name, with the step as its group

    @property
    def files(self) -> tuple[Path, ...]:
        """The step's files, the extra state last."""
        raise NotImplementedError

    def read(self) -> tuple[dict | None, ...]:
        """Read the contents of the files, in their order. Raises Truncated, or UserError when a file is invalid."""
        raise NotImplementedError

    def is_autosave(self) -> bool:
        """Return whether this is an autosave, which is deleted when the next checkpoint is written."""
        return self.step > 0 and bool(self.extra_state().get("passing"))  # the file format's key

    def extra_state(self) -> dict[str, Any]:
        """Read the content of the extra state; empty if there is none or it cannot be read."""
        with contextlib.suppress(UserError):
            return load_checkpoint(self.files[-1])
        return {}

    def write(self, *contents: dict[str, Any]) -> None:
        """Write the files atomically and read them back, so that older checkpoints may be deleted afterwards.

        Reading back takes 1.4 to 2.4 s of processor time for the 1.2 GB of the default model, beside 3.4 s for writing.
        It detects data lost by a full or remote disk before older checkpoints are deleted.

        Raises UserError when there is no room, or when the files read back are damaged; the former files stay.
        """
        for path in (*self.leftovers(), *self._orphaned_states()):
            path.unlink(missing_ok=True)
            log.debug("deleted %s, left by an interrupted save or deletion", path)
        delete_unfinished(self.folder)
        # The state first: a model without it would look like one of the original's.
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
        """Return the models that a killed run left without the other files of their step."""
        return []

    def _orphaned_states(self) -> list[Path]:
        """Return the extra states without their models, left by an interrupted save or deletion."""
        found = [(path, re.fullmatch(self.STATE, path.name)) for path in self.folder.glob("*state*.pth")]
        steps = [(path, type(self)(self.folder, int(match[1]))) for path, match in found if match and int(match[1])]
        return [path for path, saved in steps if not all(file.exists() for file in saved.files)]

    def read_state(self) -> dict[str, Any] | None:
        """Read the extra state; None if another program wrote the checkpoint, or if the state is truncated.

        A truncated state is set aside with a warning: the weights are worth more than an exact resume.
        """
        state = self.files[-1]
        try:
            return load_checkpoint(state) if state.exists() else None
        except Truncated as error:
            log.warning("%s; continuing with only the weights of %s", error, self.files[0].name)
            _set_aside(state)
            return None

    def delete(self) -> None:
        delete_together(self.files)

    def set_aside(self) -> None:
        """Rename the files to ``*.broken``, so that later saves, deletions and conversions ignore them."""
        for path in self.files:
            _set_aside(path)

    def set_aside_truncated(self) -> None:
        """Rename only the truncated files to ``*.broken``."""
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
    """Return the name that a file set aside gets."""
    return path.with_name(f"{path.name}.broken")


def read_newest_intact(folder: str | Path, candidates: Sequence[SavedStep]) -> tuple[SavedStep, tuple] | None:
    """Read the first of ``candidates`` (newest first) that is not truncated; returns it and its contents.

    Returns None if there are no candidates. Raises UserError when all are truncated, and when a complete file cannot be
    read: the user decides what to do.
    """
    for saved in candidates:
        if saved.step == 0:
            return saved, saved.read()
        try:
            return saved, saved.read()
        except Truncated as error:
            log.warning("%s; using the checkpoint before it, and renaming truncated files to *.broken", error)
            saved.set_aside_truncated()
        except UserError as error:
            raise UserError(f"{error}; it stays where it is: move it away to go on without it") from error
    if candidates:
        raise UserError(f"no checkpoint in {folder} can be read (see *.broken); run the same command to begin anew")
    return None
