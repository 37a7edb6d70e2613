"""The program of each of the two processes of tests/test_distributed.py: several runs in one process group."""

import contextlib
import json
import os
import sys
from pathlib import Path

import torch

from diffusion import training as diffusion_training
from modules.config import load_config
from modules.console import UserError, set_up_logging
from modules.training import distributed
from modules.training.run_lock import exclusive_run
from tests.another_run import another_run
from tests.test_distributed import CPU, config_of, diffusion_config_of, gradients
from vits import training
from vits.training_log import TrainingLog


def main() -> None:
    folder = Path(sys.argv[1])
    set_up_logging()
    for name in ("_mel", "_curves"):
        setattr(TrainingLog, name, lambda *_: None)  # drawing takes as long as training
    rank = distributed.launch_rank()
    own = folder if rank == 0 else folder / "of the other machine"  # which has the data, but no run folder
    # Started before the group is joined: a fork does not copy its threads.
    taken = another_run(folder / "logs" / "taken") if rank == 0 else contextlib.nullcontext()
    with taken, distributed.process_group(CPU):
        if rank == 0:
            write_configs(folder)
        distributed.all_gather(None)
        own.mkdir(exist_ok=True)
        os.chdir(own)
        for name in ("whole", "half", "parts"):
            training.train(folder / "configs" / f"{name}.json", "parts" if name == "half" else name, "cpu")
        for name in ("whole", "half", "parts"):
            diffusion_training.train(folder / "configs" / f"diffusion_{name}.yaml", "cpu")
        results = probe(folder)
        results["refused"] = is_refused(Path("logs") / "taken")
        results["written"] = [] if rank == 0 else [str(path) for path in own.rglob("*")]
    (folder / f"process_{rank}.json").write_text(json.dumps(results), encoding="utf-8")


def is_refused(folder: Path) -> bool:
    try:
        with exclusive_run(folder):
            return False
    except UserError:
        return True


def write_configs(folder: Path) -> None:
    for name, epochs in (("whole", 2), ("half", 1), ("parts", 2)):
        config_of(folder, name, epochs=epochs)
        diffusion_config_of(folder, f"diffusion_{name}", epochs=epochs)
    path = folder / "configs" / "diffusion_half.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("diffusion_half", "diffusion_parts"), encoding="utf-8")


def probe(folder: Path) -> dict:
    """Make a step, then a step in which rank 1 has a broken batch; return the weights."""
    run = training.Run(load_config(folder / "configs" / "whole.json"), Path("logs") / "probe", CPU)
    clips = [index for batch in run.batches.rank_batches(1) for _, index in batch]
    batch = next(iter(run.loader))
    run.learn(batch)
    before = weights(run)
    if distributed.is_rank_zero():
        torch.save(gradients(run.learner), folder / "gradients.pt")
    if distributed.rank() == 1:
        batch.spec[:] = float("nan")
        batch.audio[:] = float("nan")
    run.learn(batch)
    unchanged = weights(run) == before
    return {"weights": before, "batches": clips, "skipped_steps": run.skipped_steps, "unchanged": unchanged}


def weights(run: training.Run) -> list[float]:
    nets = run.learner.net_g, run.learner.net_d
    return [float(tensor.double().sum()) for net in nets for tensor in net.state_dict().values()]


if __name__ == "__main__":
    main()
