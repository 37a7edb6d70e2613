"""The synthesizer's checkpoints: ``G_<step>.pth`` and ``D_<step>.pth`` hold ``{model, iteration (epoch), optimizer,
learning_rate}`` as published. ``state_<step>.pth`` holds what an exact resume needs beyond that; other programs do not
need it. ``best_G.pth`` is the generator of the best validation so far."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from modules.console import UserError, get_logger
from modules.training.checkpoint import (
    SavedStep,
    base_file,
    load_base_model,
    load_checkpoint,
    model_of,
    read_newest_intact,
    save_checkpoint,
    set_aside_name,
)
from modules.training.saving import unfinished

log = get_logger("checkpoint")

SCORES = {"mel": "mel_distance", "judges": "judges_score"}  # train.best_by -> the key in best_G.pth


class Pair(SavedStep):
    """The generator's and the discriminator's checkpoint of one step, and the extra state for an exact resume."""

    STATE = r"state_(\d+)\.pth"

    @property
    def generator(self) -> Path:
        return self._network("G")

    @property
    def discriminator(self) -> Path:
        return self._network("D")

    def _network(self, letter: str) -> Path:
        path = self.folder / f"{letter}_{self.step}.pth"
        return path if self.step else base_file(path)

    @property
    def state(self) -> Path:
        return self.folder / f"state_{self.step}.pth"

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.generator, self.discriminator, self.state

    def read(self) -> tuple[dict, dict, dict | None]:
        """Read the three files; the state is None for a base model, and where read_state returns None."""
        if self.step == 0:
            return load_base_model(self.generator), load_base_model(self.discriminator), None
        generator, discriminator = load_checkpoint(self.generator), load_checkpoint(self.discriminator)
        model_of(generator, self.generator)
        model_of(discriminator, self.discriminator)
        return generator, discriminator, self.read_state()

    def leftovers(self) -> list[Path]:
        """Return the discriminators left by a run that was killed between two renames.

        They are recognised by an unfinished file in the folder and by their extra state. A generator is renamed last
        when saving and first when deleting, so a single generator came from elsewhere and stays.
        """
        found = unpaired(self.folder) if unfinished(self.folder) else []
        return [path for pair, path in found if pair.step and path == pair.discriminator and pair.state.exists()]


def _networks(folder: Path) -> dict[str, set[int]]:
    """Return the steps of the generators (G) and discriminators (D) in a folder; step 0 may be in safetensors."""
    steps = {prefix: set() for prefix in "GD"}
    for path in folder.glob("[GD]_*"):
        if match := re.fullmatch(r"([GD])_(?:(0|[1-9]\d*)\.pth|0\.safetensors)", path.name):
            steps[match[1]].add(int(match[2] or 0))
    return steps


def unpaired(folder: Path) -> list[tuple[Pair, Path]]:
    """Return the networks whose partner is missing and was not set aside."""
    steps, found = _networks(folder), []
    for step in sorted(steps["G"] ^ steps["D"]):
        pair = Pair(folder, step)
        path, partner = pair.files[:2] if step in steps["G"] else pair.files[1::-1]
        if not set_aside_name(partner).exists():
            found.append((pair, path))
    return found


def pairs(folder: str | Path) -> list[Pair]:
    """Return every complete pair of a run's folder, newest first; step 0 is the base model."""
    steps = _networks(Path(folder))
    return [Pair(Path(folder), step) for step in sorted(steps["G"] & steps["D"], reverse=True)]


def read_newest(folder: str | Path) -> tuple[Pair, tuple[dict, dict, dict | None]] | None:
    """Read the newest pair that is not truncated; returns it and its contents, or None if there is no checkpoint.

    Truncated files, except a base model's, are skipped with a warning and set aside. Raises UserError when there are
    checkpoints but none is usable, or half of a base model: a run must not silently start with new weights.
    """
    folder = Path(folder)
    if found := read_newest_intact(folder, pairs(folder)):
        return found
    single = unpaired(folder)
    names = ", ".join(path.name for _, path in single[:4])
    if single and unfinished(folder) and all(pair.step for pair, _ in single):
        log.warning("%s holds %s of an interrupted first save; starting anew", folder, names)
    elif single:
        raise UserError(
            f"{folder} holds only {names}; G_<step>.pth and D_<step>.pth belong together: put the other "
            "one there, or move it away to begin anew"
        )
    return None


def delete_old(folder: str | Path, keep: int, newest: int) -> None:
    """Delete all but the last ``keep`` pairs up to step ``newest`` (0: delete nothing).

    The base model of step 0 and files of other names are never touched.
    """
    if keep <= 0:
        return
    for pair in [p for p in pairs(folder) if 0 < p.step <= newest][keep:]:
        pair.delete()
        log.debug("deleted the checkpoints of step %d; %d newer ones are kept", pair.step, keep)


class Best(NamedTuple):
    """A validation: its mel distance and its step."""

    distance: float = math.inf
    step: int = 0

    @classmethod
    def of(cls, pair: Any) -> Best | None:
        """Return the validation stored in a file as (distance, step); None if the values are invalid."""
        if isinstance(pair, list | tuple) and len(pair) == 2 and tuple(map(type, pair)) == (float, int):
            return cls(*pair)
        return None


def best_generator(folder: Path) -> Path:
    """Return the path of the best generator. It must not match ``G_*.pth``, from which the original would resume."""
    return folder / "best_G.pth"


def read_best(folder: Path, chosen_by: str = "mel") -> Best:
    """Read the validation of the best generator; Best() if there is none, it cannot be read, or another score chose it.

    Its ``distance`` is the mel distance, or the score of the judges (``vits.judging.score``).
    """
    path = best_generator(folder)
    try:
        content = load_checkpoint(path) if path.exists() else {}
    except UserError as error:
        log.warning("%s; the next validation writes a new one", error)
        content = {}
    return Best.of((content.get(SCORES[chosen_by]), content.get("step"))) or Best()


def write_best(folder: Path, generator: dict[str, Any], best: Best, chosen_by: str = "mel") -> None:
    """Write a generator's checkpoint, without its optimizer, as the best one. Raises UserError if that fails."""
    content = {**generator, "optimizer": None, SCORES[chosen_by]: best.distance, "step": best.step}
    save_checkpoint(best_generator(folder), content)


def newest_generator(folder: str | Path) -> Path | None:
    """Return the ``G_<step>.pth`` of the highest step in a folder, or None."""
    found = [(int(m[1]), p) for p in Path(folder).glob("G_*.pth") if (m := re.fullmatch(r"G_(\d+)\.pth", p.name))]
    return max(found)[1] if found else None
