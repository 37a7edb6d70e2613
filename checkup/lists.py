"""The configurations and filelists of stage 2: whether they agree with each other and with the clips."""

from __future__ import annotations

import os
from collections.abc import Iterator

from checkup.finding import Finding, counted, error, number_of, ok, warning
from checkup.project import Project
from modules.console import UserError
from modules.data.filelist import read_filelist
from preparation.configs import DEFAULT_ENCODER
from vencoder import ENCODERS


def check_lists(project: Project) -> Iterator[Finding]:
    """Yield the state of config.json, diffusion.yaml and the filelists."""
    config, diffusion = project.config, project.diffusion
    problems = list(project.config_findings)  # which reading the two has filled
    if config is None:
        yield from problems or _no_config(project)
        return
    problems += _check_speakers(project)
    if project.encoder_flaw:
        problems.append(_wrong_encoder(project))
    elif diffusion is not None:
        problems += _compare_configs(project)
    elif project.clips and not project.diffusion_path.exists():
        problems.append(warning(f"there is no {project.diffusion_path}", project.splitting))
    if project.clips:
        problems += _check_filelists(project)
    yield from problems
    if not problems:
        speakers = number_of(config.spk, "speaker")
        yield ok(f"{project.config_path}: encoder {config.model.speech_encoder}, {speakers}")


def _no_config(project: Project) -> Iterator[Finding]:
    what = f"there is no {project.config_path}"
    if not project.clips:
        yield ok(f"{what} yet")
    elif project.lists[0].exists():
        yield error(f"{what}, but filelists", project.splitting)
    else:
        yield ok(f"{what} yet", project.splitting)


def _wrong_encoder(project: Project) -> Finding:
    key = project.config.model.speech_encoder
    cure = f"python preprocess_flist_config.py --speech_encoder {key if key in ENCODERS else DEFAULT_ENCODER}"
    return error(project.encoder_flaw, cure)


def _check_speakers(project: Project) -> Iterator[Finding]:
    unknown = [name for name, clips in project.speakers.items() if clips and name not in project.config.spk]
    if unknown:
        yield error(f"{project.config_path} lacks the speakers {', '.join(unknown)}, who have clips", project.splitting)


def _compare_configs(project: Project) -> Iterator[Finding]:
    """Yield where config.json and diffusion.yaml describe different data."""
    config, diffusion = project.config, project.diffusion
    differ = f"{project.config_path} and {project.diffusion_path} disagree"
    written = {  # by stage 2, which keeps other values that a user changed
        "speech encoder": (config.model.speech_encoder, diffusion.data.encoder),
        "features": (config.model.ssl_dim, diffusion.data.encoder_out_channels),
        "speakers": (config.spk, diffusion.spk),
    }
    unequal = [f"{what} {left} and {right}" for what, (left, right) in written.items() if left != right]
    if unequal:
        yield error(f"{differ}: {'; '.join(unequal)}", project.splitting)
    for key, left, right in (
        ("data.sampling_rate", config.data.sampling_rate, diffusion.data.sampling_rate),
        ("data.block_size", config.data.hop_length, diffusion.data.block_size),
    ):
        if left != right:
            yield error(f"{differ}: {key} {left} and {right}", f"set {key} to {left} in {project.diffusion_path}")


def _check_filelists(project: Project) -> Iterator[Finding]:
    """Yield what is wrong with the filelists, and which clips they lack."""
    if not any(path.exists() for path in project.lists):
        yield ok("no filelists yet", project.splitting)
        return
    try:
        train, validation = map(read_filelist, project.lists)
    except UserError as failure:
        yield error(str(failure), project.splitting)
        return
    names = dict(zip(("training", "validation"), (train, validation), strict=True))
    for which, clips in names.items():
        present = {clip.parent.name for clip in clips}
        absent = [
            name for name, own in project.speakers.items() if own and name in project.config.spk and name not in present
        ]
        if absent:
            yield error(f"the {which} list has no clip of {', '.join(absent)}", project.splitting)
            return
    listed = {os.path.abspath(clip) for clips in names.values() for clip in clips}
    new = [clip for clip in project.clips if os.path.abspath(clip) not in listed]
    if new:
        yield warning(f"{counted(new, 'clip')} in no filelist, so not used", project.splitting)
    if both := sorted({*train} & {*validation}):
        yield warning(f"{counted(both, 'clip')} in both filelists, so validation says little", project.splitting)
