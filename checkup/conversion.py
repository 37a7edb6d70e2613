"""The newest model of logs/44k: whether it can convert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from checkup.finding import Finding, error, ok, warning
from checkup.project import RUN, Project
from cluster.centres import MAKER, load_cluster_model
from cluster.retrieval import load_feature_index
from inference.model_files import find_generator
from modules.config import Config, load_config
from modules.console import UserError
from vencoder import find_encoder_file
from vits.generator_file import read_fitting_weights
from vits.saved_models import newest_generator


def check_conversion(project: Project) -> Iterator[Finding]:
    """Yield whether the newest model of logs/44k can convert."""
    newest = newest_generator(RUN)
    if newest is None or (newest.stem == "G_0" and not (RUN / "config.json").exists()):
        yield ok("no model to convert with yet")
        return
    try:
        _, path = find_generator(None, None)
    except UserError as failure:
        yield error(str(failure), f"copy the run's configuration to {RUN / 'config.json'}")
        return
    try:
        config = load_config(path)
        problems = [*_check_tensors(newest, config), *_check_own_encoder(project, config), *_check_timbre(config)]
    except UserError as failure:
        cannot = f"{newest} cannot convert"
        if newest.stem == "G_0":  # its speakers are others
            yield ok("no model to convert with yet: nothing was trained from the base model")
        elif project.broken_run:
            yield warning(f"{cannot}; the section about training says why")
        else:
            yield error(f"{cannot}: {failure}", f"put an intact model and its own configuration into {RUN}")
        return
    yield from problems
    if not problems:
        yield ok(f"{newest} can convert: {', '.join(config.spk) or 'no names of speakers'}", project.conversion)


def _check_tensors(model: Path, config: Config) -> Iterator[Finding]:
    """Yield whether the generator holds NaN or infinite values. Raises UserError if it cannot be loaded."""
    tensors = read_fitting_weights(model, config)
    spoilt = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if spoilt:
        what = f"{model} gives no sound: {len(spoilt)} of its {len(tensors)} tensors hold NaN or infinite values"
        partner = model.name.replace("G_", "D_")
        cure = f"move {model.name} and {partner} out of {RUN}, to use an older checkpoint; if there is none, train anew"
        yield error(what, cure)


def _check_own_encoder(project: Project, config: Config) -> Iterator[Finding]:
    key = config.model.speech_encoder
    if project.config is not None and key == project.config.model.speech_encoder:
        return  # the section about weights says it
    try:
        find_encoder_file(key)
    except UserError as failure:
        yield error(str(failure), f"python download_pretrain.py --encoder {key}")


def _check_timbre(config: Config) -> Iterator[Finding]:
    """Yield whether cluster centres and feature index can be read, and are of the model's voices and features."""
    centres, index = RUN / "kmeans_10000.pt", RUN / "feature_and_index.pkl"
    if centres.is_file():
        try:
            found = load_cluster_model(centres)
            if found.feature_size != config.model.ssl_dim or not set(found.speakers) <= set(config.spk):
                yield error(f"{centres} is of other speakers or another speech encoder than the model", MAKER)
        except UserError as failure:
            yield error(str(failure), MAKER)
    if index.is_file():
        try:
            if not set(load_feature_index(index).indexes) <= set(config.spk.values()):
                yield error(f"{index} is of other speakers than the model", "python train_index.py")
        except UserError as failure:
            yield error(str(failure), "python train_index.py")
