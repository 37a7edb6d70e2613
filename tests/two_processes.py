"""What each of two processes does for tests/test_distributed.py, under torchrun: several runs in one group."""

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
from modules.training.run_lock import sole_run
from tests.another_run import another_run
from tests.test_distributed import CPU, config_of, diffusion_config_of, gradients
from vits import training


def main() -> None:
    folder = Path(sys.argv[1])
    set_up_logging()
    number, _ = distributed.place()
    own = folder if number == 0 else folder / "of the other machine"  # which has the data, but no folder of the run
    # Started before the processes meet, whose threads no fork has.
    taken = another_run(folder / "logs" / "taken") if number == 0 else contextlib.nullcontext()
    with taken, distributed.process_group(CPU):
        if number == 0:
            write_configs(folder)
        distributed.gathered(None)
        own.mkdir(exist_ok=True)
        os.chdir(own)
        for name in ("whole", "half", "parts"):
            training.train(folder / "configs" / f"{name}.json", "parts" if name == "half" else name, "cpu")
        for name in ("whole", "half", "parts"):
            diffusion_training.train(folder / "configs" / f"diffusion_{name}.yaml", "cpu")
        told = probe(folder)
        told["refused"] = is_refused(Path("logs") / "taken")
        told["written"] = [] if number == 0 else [str(path) for path in own.rglob("*")]
    (folder / f"process_{number}.json").write_text(json.dumps(told), encoding="utf-8")


def is_refused(folder: Path) -> bool:
    try:
        with sole_run(folder):
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
    """A run of the test's own: its weights after a step, and a step whose second process has a broken batch."""
    run = training.Run(load_config(folder / "configs" / "whole.json"), Path("logs") / "probe", CPU)
    clips = [index for batch in run.batches.rank_batches(1) for _, index in batch]
    batch = next(iter(run.loader))
    run.learn(batch)
    before = weights(run)
    if distributed.is_first():
        torch.save(gradients(run.learner), folder / "gradients.pt")
    if distributed.rank() == 1:
        batch.spec[:] = float("nan")
        batch.audio[:] = float("nan")
    run.learn(batch)
    unchanged = weights(run) == before
    return {"weights": before, "batches": clips, "bad_steps": run.bad_steps, "unchanged": unchanged}


def weights(run: training.Run) -> list[float]:
    nets = run.learner.net_g, run.learner.net_d
    return [float(tensor.double().sum()) for net in nets for tensor in net.state_dict().values()]


if __name__ == "__main__":
    main()
