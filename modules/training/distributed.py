"""Several processes that train together, as torchrun starts them; with one process every function here is a no-op.

Each process trains on its own batches. The gradients are averaged over all processes, so the weights stay equal
everywhere. Only rank 0 writes files, logs, validates and saves; the other ranks wait for it. Gradients are reduced by
NCCL between GPUs and by Gloo between CPUs. Stop signals and checkpoints are always sent by Gloo, which does not wait
for the device.
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

GRADIENT_TIMEOUT = timedelta(minutes=10)  # all ranks compute gradients at the same time; the first step may compile
RANK_ZERO_TIMEOUT = timedelta(days=1)  # for the other ranks, while rank 0 validates and saves

# Environment variables of rank and world size: torchrun's, and those of a SLURM step of several tasks. (SLURM_NTASKS
# is not used: it is also set for the single process of a batch script.)
RANK_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))

Value = TypeVar("Value")

_control_group: Any = None  # the Gloo group with RANK_ZERO_TIMEOUT, while the process group exists


def launch_rank() -> int:
    """Return the rank that the environment gives this process, 0 if none. Raises UserError if it is no valid rank."""
    return _launch_rank_and_world_size()[0]


def launch_world_size() -> int:
    """Return the world size that the environment gives, 1 if none. Raises UserError as launch_rank."""
    return _launch_rank_and_world_size()[1]


def _launch_rank_and_world_size() -> tuple[int, int]:
    for names in RANK_VARIABLES:
        if all(name in os.environ for name in names):
            given = [os.environ[name] for name in names]
            if not all(text.isdecimal() for text in given) or not int(given[0]) < int(given[1]):
                raise UserError(
                    f"{names[0]} is '{given[0]}' and {names[1]} '{given[1]}'; they must be a process's number, from "
                    "0, and the number of processes"
                )
            return int(given[0]), int(given[1])
    return 0, 1


def local_rank() -> int:
    """Return the rank of this process among the processes of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def has_rendezvous() -> bool:
    """Return whether the environment names the rendezvous address of the processes, as torchrun's does."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ


def own_share(items: Iterable[Value]) -> list[Value]:
    """Return every n-th item from this process's launch rank on: each item belongs to exactly one of n processes."""
    return list(items)[launch_rank() :: launch_world_size()]


def rank() -> int:
    """Return this process's rank in the process group, 0 without a group."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Return the number of processes in the process group, 1 without a group."""
    return dist.get_world_size() if _joined() else 1


def is_rank_zero() -> bool:
    """Return whether this process has rank 0, the only one that writes files, logs, validates and saves."""
    return rank() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


# -- joining ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the process group within the block; yields this process's device.

    Each process of a machine gets its own GPU. From here on, ranks above 0 log errors only. A nested block does
    nothing. Raises UserError when the other processes do not join, or there are too few devices.
    """
    if launch_world_size() == 1 or _joined():
        yield device
        return
    device = own_device(device)
    if launch_rank() > 0:
        logging.getLogger("svc").setLevel(logging.ERROR)
    _join(device)
    yield device
    _leave()  # not after an error: the other ranks would not reach the barrier


def own_device(device: torch.device) -> torch.device:
    """Return this process's own device of the same type as ``device``. Raises UserError if it has none."""
    if device.type == "mps":
        raise UserError("several processes cannot share one mps device; start one without torchrun, or use the cpu")
    if device.type == "cpu":
        return device
    if device.index is not None:
        raise UserError(f"with several processes each has a GPU of its own; name the device cuda and not {device}")
    count = torch.cuda.device_count()
    if local_rank() >= count:
        raise UserError(f"this machine has {count} GPUs; give torchrun --nproc_per_node={count}")
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def _join(device: torch.device) -> None:
    global _control_group
    if not has_rendezvous():
        raise UserError(
            f"this is process {launch_rank() + 1} of {launch_world_size()}, but RANK and MASTER_ADDR, by which it "
            "would find the others, are not set; let each machine run one torchrun, which starts the processes "
            "(train.py --help shows the command)"
        )
    with _connection_errors():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=GRADIENT_TIMEOUT)
        _control_group = dist.new_group(backend="gloo", timeout=RANK_ZERO_TIMEOUT)


def _leave() -> None:
    global _control_group
    all_reduce_max(0)  # a barrier: torchrun would end rank 0 while it saves if another rank exited before it
    _control_group = None
    dist.destroy_process_group()


class LostProcess(UserError):
    """Another process has ended, or cannot be reached."""


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    """Turn connection errors into LostProcess. Usually one of the processes has ended and printed the reason itself."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise LostProcess(
            f"process {launch_rank() + 1} of {launch_world_size()} cannot reach the others: one of them has ended (its "
            "own message gives the reason), or its machine is gone; run the same command again, and it goes on from "
            f"the newest checkpoint ({reason})"
        ) from error


# -- collectives ------------------------------------------------------------------------------------------------------


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over all ranks, with one all-reduce after the backward pass.

    DistributedDataParallel overlaps the all-reduce with the backward pass, but requires that every forward pass trains
    the network; the discriminator also runs without training. All ranks must have gradients of the same parameters.
    """
    if not _joined():
        return
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
    with _connection_errors():
        dist.all_reduce(flat)
    flat /= world_size()
    means = flat.split([parameter.numel() for parameter in parameters])
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean.view_as(parameter)


def all_reduce_mean(values: Tensor) -> Tensor:
    """Return the mean of ``values`` over all ranks, on the same device; does not wait for the device."""
    if not _joined():
        return values
    values = values.clone()
    with _connection_errors():
        dist.all_reduce(values)
    return values / world_size()


def broadcast_weights(network: nn.Module) -> None:
    """Copy the weights and buffers of rank 0 to all ranks."""
    if _joined():
        for tensor in network.state_dict().values():
            with _connection_errors():
                dist.broadcast(tensor, 0)


def all_reduce_max(number: int) -> int:
    """Return the maximum of ``number`` over all ranks. Also a barrier, at which the ranks wait while rank 0 saves."""
    if not _joined():
        return number
    maximum = torch.tensor(number)
    with _connection_errors():
        dist.all_reduce(maximum, dist.ReduceOp.MAX, group=_control_group)
    return int(maximum)


def broadcast_from_rank_zero(make: Callable[[], Value]) -> Value:
    """Call ``make`` on rank 0 and return its value on all ranks; a UserError is raised on all ranks too.

    The value is pickled. Its tensors must be on the CPU.
    """
    if not _joined():
        return make()
    message: list[Any] = [None, None]  # value, error
    if is_rank_zero():
        try:
            message[0] = make()
        except UserError as error:
            message[1] = error
    with _connection_errors():
        dist.broadcast_object_list(message, group=_control_group)
    if message[1]:
        raise message[1]
    return message[0]


def all_gather(value: Value) -> list[Value]:
    """Return the ``value`` of every rank, in the order of ranks; values are pickled."""
    if not _joined():
        return [value]
    values: list[Any] = [None] * world_size()
    with _connection_errors():
        dist.all_gather_object(values, value, group=_control_group)
    return values


def require_same(what: str, value: Any) -> None:
    """Raise UserError on all ranks when ``value`` differs between ranks; ``what`` names it in the message."""
    values = all_gather(value)
    others = [other_rank for other_rank, other in enumerate(values) if other != values[0]]
    if others:
        raise UserError(
            f"process {others[0] + 1} of {len(values)} does not have the same {what} as process 1; give every machine "
            "the same configuration, filelists and prepared clips"
        )


class NoOp:
    """Stands in on other ranks for an object that only rank 0 has, such as the training log. Calls do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None
