"""The synthesizer's checkpoints: ``G_<step>.pth`` and ``D_<step>.pth`` hold ``{model, iteration (epoch), optimizer,
learning_rate}`` as published; what an exact resume needs beyond that lies in ``state_<step>.pth``, which other programs
need not know. ``best_G.pth`` is the generator of the best validation so far; its name is none that the original takes
for a checkpoint. ``G_0`` and ``D_0`` are the user's base model, also as bare state dicts or ``.safetensors``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from modules.checkpoint import (
    Saved,
    base_file,
    load_checkpoint,
    model_of,
    newest_whole,
    read_base,
    save_checkpoint,
)
from modules.console import UserError, get_logger
from modules.saving import unfinished

log = get_logger("checkpoint")

NUMBERED = re.compile(r"([GD])_(?:(\d+)\.pth|0\.safetensors)")


class Pair(Saved):
    """The generator's and the discriminator's checkpoint of one step, and the extra state of an exact resume."""

    STATE = r"state_(\d+)\.pth"

    @property
    def generator(self) -> Path:
        return self._file("G")

    @property
    def discriminator(self) -> Path:
        return self._file("D")

    def _file(self, letter: str) -> Path:
        path = self.folder / f"{letter}_{self.step}.pth"
        return path if self.step else base_file(path)

    @property
    def state(self) -> Path:
        return self.folder / f"state_{self.step}.pth"

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.generator, self.discriminator, self.state

    def read(self) -> tuple[dict, dict, dict | None]:
        """The three files' contents; the state may be None, see read_state."""
        if self.step == 0:
            generator = read_base(self.generator, "SoVITS generator")
            return generator, read_base(self.discriminator, "SoVITS discriminator"), None
        generator, discriminator = load_checkpoint(self.generator), load_checkpoint(self.discriminator)
        model_of(generator, self.generator)
        model_of(discriminator, self.discriminator)
        return generator, discriminator, self.read_state()


def pairs(folder: str | Path) -> list[Pair]:
    """Every complete pair of a run's folder, the newest first; step 0 is the base model."""
    folder = Path(folder)
    steps = {prefix: set() for prefix in "GD"}
    for path in folder.glob("[GD]_*"):
        if match := NUMBERED.fullmatch(path.name):
            steps[match[1]].add(int(match[2] or 0))
    return [Pair(folder, step) for step in sorted(steps["G"] & steps["D"], reverse=True)]


def read_newest(folder: str | Path) -> tuple[Pair, tuple[dict, dict, dict | None]] | None:
    """The newest pair that can be read whole; None when the folder holds no checkpoint.

    Truncated pairs are passed over with a warning and set aside. Raises UserError when there are checkpoints and none
    can be used, so that a run does not quietly begin from nothing.
    """
    if found := newest_whole(folder, pairs(folder)):
        return found
    lone = sorted(path.name for path in Path(folder).glob("[GD]_*") if NUMBERED.fullmatch(path.name))
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
    """Where the generator of the best validation is.

    The original counts every ``G_*`` as a checkpoint, when it resumes and when it deletes old ones; this is none.
    """
    return folder / "best_G.pth"


def rename_former_best(folder: Path) -> None:
    """Give a best generator of an earlier version (``G_best.pth``) its present name, unless there is a newer one."""
    former = folder / "G_best.pth"
    if former.exists() and not best_generator(folder).exists():
        former.replace(best_generator(folder))


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
