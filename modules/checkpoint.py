"""Checkpoint files: read safely, written whole or not at all, found by step, kept or deleted by rule.

``G_<step>.pth`` and ``D_<step>.pth`` hold ``{model, iteration (epoch), optimizer, learning_rate}`` as published. What
an exact resume needs beyond that lies in ``state_<step>.pth`` beside them, which other programs need not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modules.atomic_file import atomic_path
from modules.console import UserError, get_logger

log = get_logger("checkpoint")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint dictionary onto the CPU, running no code of the file's.

    Raises UserError when the file is missing, truncated, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, PermissionError):
        raise  # no fault of the file's
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, KeyError ... for broken files
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a checkpoint; it is truncated, of another kind, "
            f"or holds more than tensors ({reason})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint dictionary")
    return checkpoint


def model_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict inside a checkpoint. Raises UserError when there is none."""
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"{path} holds no 'model': it is no checkpoint of a generator or discriminator")
    return checkpoint["model"]


def load_weights(module: nn.Module, state: dict[str, torch.Tensor], where: str | Path) -> None:
    """Load a state dict that must fit. Raises UserError naming the first differing names and shapes."""
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
        raise UserError(f"{where} does not match its config.json: {'; '.join(complaints[:3])}{more}")
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
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} could not be written ({error}); the checkpoints before it are intact") from error


@dataclass(frozen=True)
class Pair:
    """The generator's and the discriminator's checkpoint of one step, and the extra state of an exact resume."""

    folder: Path
    step: int

    @property
    def generator(self) -> Path:
        return self.folder / f"G_{self.step}.pth"

    @property
    def discriminator(self) -> Path:
        return self.folder / f"D_{self.step}.pth"

    @property
    def state(self) -> Path:
        return self.folder / f"state_{self.step}.pth"

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.generator, self.discriminator, self.state

    def read(self) -> tuple[dict, dict, dict | None]:
        """The three files' contents; the state is None where the pair was written by another program."""
        generator, discriminator = load_checkpoint(self.generator), load_checkpoint(self.discriminator)
        model_of(generator, self.generator)
        model_of(discriminator, self.discriminator)
        return generator, discriminator, load_checkpoint(self.state) if self.state.exists() else None

    def set_aside(self) -> None:
        """Rename the files to ``*.broken``: out of the way of later saves, deletions and conversions, but not lost."""
        for path in self.files:
            if path.exists():
                path.replace(path.with_name(path.name + ".broken"))


def pairs(folder: str | Path) -> list[Pair]:
    """Every complete pair of a run's folder, the newest first; step 0 is the base model."""
    folder = Path(folder)
    steps = {prefix: set() for prefix in "GD"}
    for path in folder.glob("*.pth"):
        if match := re.fullmatch(r"([GD])_(\d+)\.pth", path.name):
            steps[match[1]].add(int(match[2]))
    return [Pair(folder, step) for step in sorted(steps["G"] & steps["D"], reverse=True)]


def read_newest(folder: str | Path) -> tuple[Pair, tuple[dict, dict, dict | None]] | None:
    """The newest pair that can be read whole; None when the folder holds no checkpoint.

    Broken pairs are passed over with a warning and set aside. Raises UserError when there are checkpoints but none of
    use: a run must not quietly begin from nothing.
    """
    there = pairs(folder)
    for pair in there:
        try:
            return pair, pair.read()
        except UserError as error:
            log.warning("%s; passing it over for the one before and renaming its files to *.broken", error)
            pair.set_aside()
    if there:
        raise UserError(f"no checkpoint in {folder} can be read (see *.broken); run the same command to begin anew")
    lone = sorted(path.name for path in Path(folder).glob("[GD]_*.pth") if re.fullmatch(r"[GD]_\d+\.pth", path.name))
    if lone:
        raise UserError(f"{folder} holds {', '.join(lone[:4])} alone; G_<step>.pth and D_<step>.pth belong together")
    return None


def delete_old(folder: str | Path, keep: int, newest: int) -> None:
    """Of the pairs up to step ``newest`` keep the last ``keep`` (0: all).

    The base model of step 0 and files of other names are never touched.
    """
    if keep <= 0:
        return
    for pair in [p for p in pairs(folder) if 0 < p.step <= newest][keep:]:
        for path in pair.files:
            path.unlink(missing_ok=True)
        log.debug("deleted the checkpoints of step %d, %d newer ones are kept", pair.step, keep)


def newest_generator(folder: str | Path) -> Path | None:
    """The ``G_<step>.pth`` of the highest step in a folder, or None."""
    found = [(int(m[1]), p) for p in Path(folder).glob("G_*.pth") if (m := re.fullmatch(r"G_(\d+)\.pth", p.name))]
    return max(found)[1] if found else None
