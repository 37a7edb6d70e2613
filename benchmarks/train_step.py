"""Where a training step's time goes: data, generator, discriminator; and what leaving out needless gradients gives.

    python benchmarks/train_step.py                                     # the default configuration on the CPU
    python benchmarks/train_step.py --config configs/config.json --device cuda --batch_size 6

The clips are generated. The plain step, for comparison, keeps gradients for the discriminator's own weights and a graph
for the real signal's pass during the generator's step, as the original does. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from modules.config import Config, load_config
from modules.device import pick_device
from modules.epoch_batches import EpochBatches
from tests.tiny import write_clip
from vits.dataset import ClipDataset, collate
from vits.losses import feature_loss, generator_loss
from vits.step import Generated, Learner

PARTS = ("data", "generate", "discriminator", "generator")


class PlainLearner(Learner):
    """The step as it would be written down first: every gradient is computed, needed or not."""

    def _judge(self, generated: Generated):
        with self._autocast():
            _, real_maps = self.net_d(generated.target_audio)
            fake, fake_maps = self.net_d(generated.output.audio)
        loss, *_ = generator_loss(fake)
        return loss, feature_loss(real_maps, fake_maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="config.json (default: the published default configuration)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="steps measured, after a first (default: %(default)s)")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    config = load_config(arguments.config) if arguments.config else Config()
    config.train.batch_size = arguments.batch_size
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        batches = make_data(Path(folder), config, arguments.seconds)
        ours, plain = measure((Learner(config, device), PlainLearner(config, device)), batches, arguments.steps)
    if device.type == "cuda":
        ours["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    ours["ratio_to_plain_step"] = plain["step"] / ours["step"]
    for name in (*PARTS, "step"):
        print(f"{name:14s} {ours[name]:8.3f} s    plain {plain[name]:8.3f} s")
    print(f"a step is {ours['ratio_to_plain_step']:.2f} times faster than the plain one")
    print(json.dumps({"benchmark": "train_step", "device": str(device), "batch_size": arguments.batch_size, **ours}))


def make_data(folder: Path, config: Config, seconds: float):
    """A function that reads the next batch from disk, of generated clips of one length."""
    config.spk = {"singer": 0}
    paths = [folder / "singer" / f"{index}.wav" for index in range(config.train.batch_size)]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        write_clip(path, seconds, seed, features=config.model.ssl_dim)
    config.data.training_files = str(folder / "train.txt")
    Path(config.data.training_files).write_text("\n".join(map(str, paths)), encoding="utf-8")
    dataset = ClipDataset(config.data.training_files, config, training=True)
    sampler = EpochBatches(len(dataset), config.train.batch_size, seed=0)
    return lambda: collate([dataset[key] for key in next(iter(sampler))])


def measure(learners: tuple[Learner, ...], next_batch, steps: int) -> list[dict[str, float]]:
    """The median seconds of each part of a step, for each learner; they take turns, so a busy machine hurts all."""
    laps = [[timed_step(learner, next_batch) for learner in learners] for _ in range(steps + 1)][1:]
    by_learner = zip(*laps, strict=True)
    return [{part: statistics.median(lap[part] for lap in own) for part in own[0]} for own in by_learner]


def timed_step(learner: Learner, next_batch) -> dict[str, float]:
    """Seconds of each part of one step."""
    moments = [time.perf_counter()]

    def lap() -> None:
        if learner.device.type == "cuda":
            torch.cuda.synchronize()
        moments.append(time.perf_counter())

    batch = next_batch().to(learner.device)
    lap()
    generated = learner.generate(batch)
    lap()
    learner.discriminator_step(generated)
    lap()
    learner.generator_step(generated, adversarial=True)
    learner.scaler.update()
    lap()
    spans = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    return {**dict(zip(PARTS, spans, strict=True)), "step": sum(spans)}


if __name__ == "__main__":
    main()
