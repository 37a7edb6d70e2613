"""The diffusion model's checkpoints: ``model_<step>.pt`` holds ``{global_step, model}`` as published, and optionally
``optimizer``. ``model_<step>.state.pth`` holds what an exact resume needs beyond that."""

from __future__ import annotations

import re
from pathlib import Path

from modules.console import get_logger
from modules.training.checkpoint import (
    SavedStep,
    base_file,
    load_base_model,
    load_checkpoint,
    model_of,
    read_newest_intact,
)

log = get_logger("checkpoint")


class DiffusionCheckpoint(SavedStep):
    """The diffusion model's checkpoint of one step, and the extra state for an exact resume."""

    STATE = r"model_(\d+)\.state\.pth"

    @property
    def model(self) -> Path:
        path = self.folder / f"model_{self.step}.pt"
        return path if self.step else base_file(path)

    @property
    def state(self) -> Path:
        return self.folder / f"model_{self.step}.state.pth"  # not .pt: the original reads every .pt file as a model

    @property
    def files(self) -> tuple[Path, Path]:
        return self.model, self.state

    def read(self) -> tuple[dict, dict | None]:
        """Read both files; the state is None for a base model, and where read_state returns None."""
        if self.step == 0:
            return load_base_model(self.model), None
        content = load_checkpoint(self.model)
        model_of(content, self.model)
        return content, self.read_state()


def diffusion_checkpoints(folder: str | Path) -> list[DiffusionCheckpoint]:
    """Return every ``model_<step>.pt`` of a run's folder, newest first; step 0 is the base model."""
    folder = Path(folder)
    names = re.compile(r"model_(?:(0|[1-9]\d*)\.pt|0\.safetensors)")
    steps = {int(match[1] or 0) for path in folder.glob("model_*") if (match := names.fullmatch(path.name))}
    return [DiffusionCheckpoint(folder, step) for step in sorted(steps, reverse=True)]


def read_newest_diffusion(folder: str | Path) -> tuple[DiffusionCheckpoint, tuple[dict, dict | None]] | None:
    """Read the newest checkpoint that is not truncated, as read_newest_intact does; None if there is none."""
    return read_newest_intact(folder, diffusion_checkpoints(folder))


def delete_old_diffusion(folder: str | Path, newest: int, interval: int, permanent: int) -> None:
    """Delete the checkpoints of the last ``interval`` steps before ``newest``, except at multiples of ``permanent``.

    Older ones, as published, and the base model of step 0 stay. Only the newest two keep their extra state, which is
    twice as large as the model.
    """
    present = [saved for saved in diffusion_checkpoints(folder) if 0 < saved.step <= newest]
    kept = [s for s in present if s.step == newest or s.step < newest - interval or s.step % permanent == 0]
    for saved in present:
        if saved not in kept:
            saved.model.unlink(missing_ok=True)
            log.debug("deleted the checkpoint of step %d", saved.step)
        if saved not in kept[:2]:
            saved.state.unlink(missing_ok=True)
