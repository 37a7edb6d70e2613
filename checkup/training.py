"""The runs in logs/: checkpoints, base models, what killed runs left, and whether logs/44k fits the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from checkup.finding import ERROR, Finding, counted, error, ok, warning
from checkup.project import RUN, Project
from diffusion.saved_models import diffusion_checkpoints
from modules.atomic_file import obstacle
from modules.config import load_config, load_diffusion_config
from modules.console import UserError
from modules.training.checkpoint import is_dense, load_checkpoint, model_of
from modules.training.saving import unfinished
from modules.untrusted.torch_file import check_torch_file
from modules.untrusted.truncation import is_truncated
from modules.weights.safetensors_file import SUFFIX
from vits.generator_file import read_generator
from vits.saved_models import Pair, best_generator, pairs, unpaired
from vits.synthesizer import Synthesizer
from vits.training import check_run_config

LOGS = RUN.parent


def check_training(project: Project) -> Iterator[Finding]:
    """Yield the state of every run."""
    runs = sorted(path for path in LOGS.iterdir() if path.is_dir()) if LOGS.is_dir() else []
    found = [(run, pairs(run)) for run in runs]
    for run, saved in found:
        findings = list(_check_run(project, run, saved))
        yield from findings
        if run == RUN:
            project.broken_run = any(finding.level == ERROR for finding in findings)
        if saved and all(finding.level == "ok" for finding in findings):
            yield ok(f"{run}: {_newest_in_words(saved)}")
    if why := obstacle(RUN):
        yield error(f"{RUN} cannot be made: {why}", "move it away, or repair the link")
    elif not pairs(RUN) and not unpaired(RUN):
        is_ready = project.config is not None and project.lists[0].exists() and project.clips
        yield ok(f"no run yet in {RUN}", project.training if is_ready else "")


def _newest_in_words(saved: list[Pair]) -> str:
    return f"the newest checkpoint is of step {saved[0].step}" if saved[0].step else "a base model, nothing trained yet"


def _check_run(project: Project, run: Path, saved: list[Pair]) -> Iterator[Finding]:
    flaws = _flaws(run, saved)
    yield from _check_files(project, saved, flaws)
    yield from _check_halves(project, run)
    if left := unfinished(run):
        what = f"{counted(left, 'file')} of a save that was interrupted, or is under way"
        yield warning(what, f"delete them if no run is training: the next save of python train.py -m {run.name} does")
    if broken := sorted(run.glob("*.broken")):
        yield warning(f"{counted(broken, 'truncated checkpoint')}, set aside by a former run", "delete them")
    if flaw := _config_flaw(run):
        yield error(flaw, _copying(project.config_path, run / "config.json"))
    elif run == RUN and project.config is not None and not project.encoder_flaw:
        yield from _check_against_config(project, run, saved, flaws)
    yield from _check_diffusion(project, run / "diffusion")


def _config_flaw(run: Path) -> str:
    """Return why the configuration beside a run's generators cannot be read; empty if it can, or if there is none."""
    path = run / "config.json"
    if path.exists() and any(run.glob("G_*")):
        try:
            load_config(path)
        except UserError as failure:
            return str(failure)
    return ""


def _copying(source: Path, target: Path) -> str:
    return f"copy {source} to {target}, if it is the one that the run was trained with"


def _flaws(run: Path, saved: list[Pair]) -> dict[Path, str]:
    """Return the ``_flaw`` of each of a run's checkpoints. Only their structure is read, not their tensors."""
    files = [path for pair in saved for path in pair.files if path.exists()]
    files += [path for _, path in unpaired(run)]
    files += [best_generator(run)] if best_generator(run).exists() else []
    return {path: _flaw(path) for path in files}


def _check_files(project: Project, saved: list[Pair], flaws: dict[Path, str]) -> Iterator[Finding]:
    """Yield which checkpoints cannot be read."""
    for path, flaw in flaws.items():
        if flaw and path.stem.startswith("state_"):
            yield warning(f"{path} {flaw}: the run continues from its weights alone", f"delete {path}")
        elif flaw:
            yield error(f"{path} {flaw}", _cure(project, path, saved, flaws))


def _flaw(path: Path) -> str:
    """Return why a checkpoint cannot be read, as a clause; empty if it can."""
    try:
        if path.suffix == SUFFIX:
            load_checkpoint(path)
        else:
            check_torch_file(path)
    except Exception as failure:  # a damaged file raises almost anything
        if path.suffix != SUFFIX and is_truncated(path, failure):
            return f"is truncated ({path.stat().st_size:,} bytes)"
        return f"cannot be read ({failure})"
    return ""


def _cure(project: Project, path: Path, saved: list[Pair], flaws: dict[Path, str]) -> str:
    """Return what to do about a checkpoint that cannot be read."""
    if path.stem.endswith("_0"):
        return f"delete {path}, then: {_fetching(project)}"
    if path == best_generator(path.parent):
        return f"delete {path}; the next validation writes a new one"
    intact = [pair for pair in saved if pair.step and path not in pair.files and _is_intact(pair, flaws)]
    if not intact:
        step = path.stem.rpartition("_")[2]
        return f"put an intact copy there, or move G_{step}.pth and D_{step}.pth away and train anew"
    return f"python train.py -m {path.parent.name}, which continues from step {intact[0].step}"


def _is_intact(pair: Pair, flaws: dict[Path, str]) -> bool:
    return not any(flaws.get(path) for path in pair.files[:2])


def _fetching(project: Project) -> str:
    return project.base_fetching or "fetch it again from where it is from"


def _check_halves(project: Project, run: Path) -> Iterator[Finding]:
    """Yield the generators without discriminators, which convert but cannot be trained, and the contrary."""
    for pair, path in unpaired(run):
        partner = pair.discriminator if path == pair.generator else pair.generator
        what = f"{path} has no {partner.name}"
        if pair.step == 0:
            yield error(f"{what}: half of a base model", f"put {partner} there: {_fetching(project)}")
        elif path == pair.generator and not project.clips:
            yield ok(f"{what}: it can convert")
        elif path == pair.generator:
            yield warning(f"{what}: it can convert, but training does not continue from it", f"put {partner} there")
        else:
            yield warning(f"{what}, and is of no use", f"put {partner} there, or delete {path}")


def _check_against_config(project: Project, run: Path, saved: list[Pair], flaws: dict[Path, str]) -> Iterator[Finding]:
    """Yield where the run and config.json describe different models."""
    back = f"give {project.config_path} the run's values, or train under another name"
    try:
        check_run_config(project.config, run)
    except UserError as failure:
        yield error(str(failure), f"{back}: python train.py -m another_name")
        return
    for pair in saved:
        if _is_intact(pair, flaws):
            yield from _check_shapes(project, pair, f"{back}: python train.py -m another_name")
            return


def _check_shapes(project: Project, pair: Pair, cure: str) -> Iterator[Finding]:
    """Yield whether a generator has the names and shapes of the configuration's network; a base model, half of them."""
    config = project.config
    try:
        state = _state_of(pair)
    except UserError as failure:
        yield error(str(failure), f"move {pair.generator} away")
        return
    with torch.device("meta"):
        own = Synthesizer(
            config.model,
            spec_channels=config.data.filter_length // 2 + 1,
            segment_frames=config.train.segment_size // config.data.hop_length,
        ).state_dict()
    other = [name for name in own if not is_dense(state.get(name)) or state[name].shape != own[name].shape]
    if pair.step and other:
        shapes = [f"{name} {list(state[name].shape)} and {list(own[name].shape)}" for name in other if name in state]
        first = shapes[0] if shapes else f"{other[0]} is missing"
        what = f"{pair.generator} has other sizes than the configuration: {len(other)} tensors differ, first {first}"
        yield error(what, cure)
    elif len(other) > len(own) / 2:
        what = f"{pair.generator} is no base model for this configuration: {len(other)} of {len(own)} tensors differ"
        yield error(what, f"move {pair.generator} and {pair.discriminator} away, then: {_fetching(project)}")


def _state_of(pair: Pair) -> dict[str, torch.Tensor]:
    if pair.step:
        return read_generator(pair.generator)["model"]
    content = load_checkpoint(pair.generator)
    if content and all(is_dense(value) for value in content.values()):  # a bare state dict
        return content
    return model_of(content, pair.generator)


def _check_diffusion(project: Project, folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        return
    saved = diffusion_checkpoints(folder)
    for one in saved:
        if flaw := _flaw(one.model):
            yield error(
                f"{one.model} {flaw}", "python train_diff.py -c configs/diffusion.yaml, if an older one is there"
            )
    path = folder / "config.yaml"
    if saved and saved[0].step and not path.is_file():
        yield error(f"{path} is missing, which {saved[0].model.name} needs", f"copy the run's diffusion.yaml to {path}")
    elif path.is_file():
        try:
            former, now = load_diffusion_config(path), project.diffusion
        except UserError as failure:
            yield error(str(failure), _copying(project.diffusion_path, path))
            return
        if now is None or folder.parent != RUN:
            return
        if (former.data.encoder, former.spk) != (now.data.encoder, now.spk):
            what = f"{path} and {project.diffusion_path} differ in speech encoder or speakers"
            yield error(what, f"give {project.diffusion_path} the run's values, or move {folder} away")
