"""Several processes that work together, as torchrun starts them; in a run of one process nothing here does anything.

In training each process learns from batches of its own, the gradients are averaged over all of them, and so the
weights stay the same everywhere. Only rank 0 writes files, logs, validates and saves; meanwhile the other ranks wait
for it. Gradients travel by NCCL between GPUs and by Gloo between CPUs; what is agreed on at the end of a step and
what is read from a checkpoint by Gloo in either case, which needs no device to be waited for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modules.console import UserError
from modules.memory import is_lack_of_memory

FOR_GRADIENTS = timedelta(minutes=10)  # all compute them at the same time; the first step may compile
FOR_THE_FIRST = timedelta(days=1)  # it alone evaluates and saves, however many clips there are

# What numbers a process and counts them all: torchrun's names, and those of a SLURM step of several tasks (its
# SLURM_NTASKS is there for the one process of a batch script too).
PLACES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))

Value = TypeVar("Value")

_patient: Any = None  # the process group with the time of FOR_THE_FIRST, while there is one


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are, as the environment has them; (0, 1) where it has none.

    Raises UserError when they are no such numbers.
    """
    for names in PLACES:
        if all(name in os.environ for name in names):
            given = [os.environ[name] for name in names]
            if not all(text.isdecimal() for text in given) or not int(given[0]) < int(given[1]):
                raise UserError(
                    f"{names[0]} is '{given[0]}' and {names[1]} '{given[1]}'; they must be a process's number, from "
                    "0, and the number of processes"
                )
            return int(given[0]), int(given[1])
    return 0, 1


def local_place() -> int:
    """This process's number among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def can_meet() -> bool:
    """Whether the environment says how the processes meet, as torchrun's does."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


def own_share(items: Iterable[Value]) -> list[Value]:
    """Every n-th of the items, this process's by its ``place``: together the n processes have each item once."""
    number, count = place()
    return list(items)[number::count]


def rank() -> int:
    """This process's number among those that have joined, from 0."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """How many processes have joined."""
    return dist.get_world_size() if _joined() else 1


def is_first() -> bool:
    """Whether this process has rank 0, the only one that writes files, logs, validates and saves."""
    return rank() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


# -- joining ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun has started, within the block; yields the device of this one.

    Of GPUs each process of a machine has its own. From here on all but the first say errors alone. A block within
    another one joins nothing anew. Raises UserError when the others do not come, or there are not devices enough.
    """
    number, count = place()
    if count == 1 or _joined():
        yield device
        return
    device = _own_device(device)
    if number > 0:
        logging.getLogger("svc").setLevel(logging.ERROR)
    _join(device, number, count)
    yield device
    _leave()  # not after an error: the others would have to come too


def _own_device(device: torch.device) -> torch.device:
    """This process's own device of the kind of ``device``."""
    if device.type == "mps":
        raise UserError("several processes cannot share one mps device; train without torchrun, or on the cpu")
    if device.type == "cpu":
        return device
    if device.index is not None:
        raise UserError(f"with several processes each has a GPU of its own; name the device cuda and not {device}")
    there = torch.cuda.device_count()
    if local_place() >= there:
        raise UserError(f"this machine has {there} GPUs; give torchrun --nproc_per_node={there}")
    torch.cuda.set_device(local_place())
    return torch.device("cuda", local_place())


def _join(device: torch.device, number: int, count: int) -> None:
    global _patient
    if not can_meet():
        raise UserError(
            f"this is process {number + 1} of {count}, but nothing says how it meets the others; let each machine run "
            "one torchrun, which starts the processes (train.py --help shows the command)"
        )
    with _reaching_the_others():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=FOR_GRADIENTS)
        _patient = dist.new_group(backend="gloo", timeout=FOR_THE_FIRST)


def _leave() -> None:
    global _patient
    largest(0)  # the first may still be saving; were another gone before it, torchrun would end it
    _patient = None
    dist.destroy_process_group()


class OthersAreGone(UserError):
    """Another process has ended, or cannot be reached."""


@contextlib.contextmanager
def _reaching_the_others() -> Iterator[None]:
    """Errors of the connection as a sentence: mostly one of the processes is gone, and its own message says why."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        number, count = place()
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise OthersAreGone(
            f"process {number + 1} of {count} cannot reach the others: one of them has ended, and its own message says "
            "why, or its machine is gone; run the same command again, and it goes on from the newest checkpoint "
            f"({reason})"
        ) from error


# -- working together -------------------------------------------------------------------------------------------------


def average_gradients(network: nn.Module) -> None:
    """Put the mean over all processes in the place of each gradient.

    All of them travel together, after the backward pass. DistributedDataParallel sends them while it goes on, but wants
    a network that learns in every pass, and the discriminator also judges without learning. Every process must have
    gradients of the same parameters.
    """
    if not _joined():
        return
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    together = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
    with _reaching_the_others():
        dist.all_reduce(together)
    together /= world_size()
    parts = together.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def average(values: Tensor) -> Tensor:
    """The mean of ``values`` over all processes, on the same device, not waited for."""
    if not _joined():
        return values
    values = values.clone()
    with _reaching_the_others():
        dist.all_reduce(values)
    return values / world_size()


def spread_weights(network: nn.Module) -> None:
    """Give every process the weights and buffers of the first."""
    if _joined():
        for tensor in network.state_dict().values():
            with _reaching_the_others():
                dist.broadcast(tensor, 0)


def largest(number: int) -> int:
    """The largest ``number`` that any process gives. All wait here for the first, while it evaluates or saves."""
    if not _joined():
        return number
    given = torch.tensor(number)
    with _reaching_the_others():
        dist.all_reduce(given, dist.ReduceOp.MAX, group=_patient)
    return int(given)


def from_the_first(make: Callable[[], Value]) -> Value:
    """What ``make`` returns in the first process, which alone calls it; a UserError there is raised everywhere.

    The value travels pickled. Its tensors must lie on the CPU.
    """
    if not _joined():
        return make()
    parcel: list[Any] = [None, None]
    if is_first():
        try:
            parcel[0] = make()
        except UserError as error:
            parcel[1] = error
    with _reaching_the_others():
        dist.broadcast_object_list(parcel, group=_patient)
    if parcel[1]:
        raise parcel[1]
    return parcel[0]


def gathered(value: Value) -> list[Value]:
    """The ``value`` of every process, in their order, in all of them; it travels pickled."""
    if not _joined():
        return [value]
    values: list[Any] = [None] * world_size()
    with _reaching_the_others():
        dist.all_gather_object(values, value, group=_patient)
    return values


def demand_the_same(what: str, value: Any) -> None:
    """Raise UserError in every process when ``value`` is not the same in all; ``what`` names it in the sentence."""
    values = gathered(value)
    others = [number for number, other in enumerate(values) if other != values[0]]
    if others:
        raise UserError(
            f"process {others[0] + 1} of {len(values)} does not have the same {what} as process 1; give every machine "
            "the same configuration, filelists and prepared clips"
        )


class Silent:
    """Stands in the other processes for what the first alone has, a logbook for instance: any call does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None
