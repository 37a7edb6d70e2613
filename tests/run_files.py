"""Small checkpoints of training runs, whole and damaged."""

import argparse

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion.saved_models import DiffusionCheckpoint
from modules.training import checkpoint
from vits import saved_models

HARMLESS = argparse.Namespace(lr=1)  # which torch does not read, as it does not know it


def write_pair(folder, step, state=True):
    pair = saved_models.Pair(folder, step)
    for path in (pair.generator, pair.discriminator):
        checkpoint.save_checkpoint(path, {"model": {"w": torch.full((3,), float(step))}, "iteration": 1})
    if state:
        checkpoint.save_checkpoint(pair.state, {"epoch": 1})
    return pair


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def event_steps(folder, tag):
    """The steps at which TensorBoard shows a scalar."""
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def age_events(folder):
    """Rename event files, which are read in the order of their names, so that those of another run come after them."""
    for number, path in enumerate(sorted(folder.glob("events.*"))):
        path.rename(folder / f"events.out.tfevents.{number:010}.former")


def write_diffusion(folder, *steps):
    for step in steps:
        saved = DiffusionCheckpoint(folder, step)
        checkpoint.save_checkpoint(saved.model, {"global_step": step, "model": {"w": torch.full((3,), float(step))}})
        checkpoint.save_checkpoint(saved.state, {"optimizer": step})
