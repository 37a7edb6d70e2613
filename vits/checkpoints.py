"""The synthesizer's checkpoints: ``G_<step>.pth`` and ``D_<step>.pth`` hold ``{model, iteration (epoch), optimizer,
learning_rate}`` as published; what an exact resume needs beyond that lies in ``state_<step>.pth``, which other programs
need not know. ``G_best.pth`` is the generator of the best validation so far."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from modules.checkpoint import Saved, load_checkpoint, model_of, newest_whole, save_checkpoint
from modules.console import UserError, get_logger
from modules.saving import unfinished

log = get_logger("checkpoint")


class Pair(Saved):
    """The generator's and the discriminator's checkpoint of one step, and the extra state of an exact resume."""

    STATE = r"state_(\d+)\.pth"

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
        """The three files' contents; the state may be None, see read_state."""
        generator, discriminator = load_checkpoint(self.generator), load_checkpoint(self.discriminator)
        model_of(generator, self.generator)
        model_of(discriminator, self.discriminator)
        return generator, discriminator, self.read_state()


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
    if found := newest_whole(folder, pairs(folder)):
        return found
    lone = sorted(path.name for path in Path(folder).glob("[GD]_*.pth") if re.fullmatch(r"[GD]_\d+\.pth", path.name))
    if lone and unfinished(Path(folder)):
        log.warning("%s holds %s of a first save that was cut off; beginning anew", folder, ", ".join(lone))
    elif lone:
        raise UserError(f"{folder} holds {', '.join(lone[:4])} alone; G_<step>.pth and D_<step>.pth belong together")
    return None


def delete_old(folder: str | Path, keep: int, newest: int) -> None:
    """Of the pairs up to step ``newest`` keep the last ``keep`` (0: all).

    The base model of step 0 and files of other names are never touched.
    """
    if keep <= 0:
        return
    for pair in [p for p in pairs(folder) if 0 < p.step <= newest][keep:]:
        pair.delete()
        log.debug("deleted the checkpoints of step %d, %d newer ones are kept", pair.step, keep)


class Best(NamedTuple):
    """A validation: its mel distance, and the step that it was at."""

    distance: float = math.inf
    step: int = 0


def best_generator(folder: Path) -> Path:
    """Where the generator of the best validation lies: by its name it is neither the newest nor ever an old one."""
    return folder / "G_best.pth"


def read_best(folder: Path) -> Best:
    """The validation that the best generator is of; Best() where there is none that can be read."""
    path = best_generator(folder)
    try:
        content = load_checkpoint(path) if path.exists() else {}
    except UserError as error:
        log.warning("%s; the next validation makes another", error)
        content = {}
    return Best(content.get("mel_distance", math.inf), content.get("step", 0))


def write_best(folder: Path, generator: dict[str, Any], best: Best) -> None:
    """Keep a generator's checkpoint, without its optimizer, as the best one. Raises UserError when it cannot."""
    content = {**generator, "optimizer": None, "mel_distance": best.distance, "step": best.step}
    save_checkpoint(best_generator(folder), content)


def newest_generator(folder: str | Path) -> Path | None:
    """The ``G_<step>.pth`` of the highest step in a folder, or None."""
    found = [(int(m[1]), p) for p in Path(folder).glob("G_*.pth") if (m := re.fullmatch(r"G_(\d+)\.pth", p.name))]
    return max(found)[1] if found else None
