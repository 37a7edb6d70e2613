"""Measure the parts of a training step, and how much faster it is than a straightforward implementation.

    OMP_NUM_THREADS=1 python benchmarks/train_step.py --clock processor         # on a busy CPU
    python benchmarks/train_step.py --half bf16                                 # on an idle CPU
    python benchmarks/train_step.py --device cuda --batch_size 6 --half fp16 bf16 --compile

The straightforward step has PyTorch's own convolutions, weight norm in every pass, separate discriminator passes for
the real and the fake signal, gradients of all weights in both steps, the norm of each gradient fetched separately, and
the plain optimizer. With --changes the improvements are added one by one, in float32. Then comes this program's step,
in float32 and, with --half, in half precision. The variants alternate, so a busy machine slows all of them, and the
fastest step of each counts. The clips are generated. The last line is JSON.

On a CUDA device the straightforward step, in float32 with PyTorch's defaults and in half precision, is compared with
this program's step: without CUDA graphs, with them, and with --compile compiled. They run one after the other, so each
has the device's whole memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.config import Config, load_config
from modules.data.sampler import EpochBatches
from modules.device import allow_tf32, pick_device
from modules.layers.weight_norm import NormedWeight
from tests.tiny import write_clip
from vits.dataset import Batch, ClipDataset, collate
from vits.discriminator import scores_of
from vits.losses import discriminator_loss, feature_loss, generator_loss
from vits.step import Generated, Learner

PARTS = ("generate", "discriminator", "generator")
CHANGES = {
    "gradients": "no gradient of the discriminator's weights and no graph for the real signal in the generator's step",
    "optimizer": "fused AdamW; norms of all gradients at once, without waiting for the device",
    "together": "real and fake in one pass; weights normalised once for both passes of the generator's step",
}


class StraightforwardLearner(Learner):
    """A straightforward implementation of the step, with some of the CHANGES."""

    def __init__(self, config: Config, device: torch.device, changes: tuple[str, ...], **options: bool):
        super().__init__(config, device, **options)
        self.changes, train = changes, config.train
        write_plainly(self.net_g)
        write_plainly(self.net_d)
        if "optimizer" not in changes:
            self.optim_g, self.optim_d = (
                torch.optim.AdamW(net.parameters(), train.learning_rate, tuple(train.betas), train.eps, foreach=False)
                for net in (self.net_g, self.net_d)
            )

    def discriminator_loss(self, generated: Generated) -> Tensor:
        if "together" in self.changes:
            return super().discriminator_loss(generated)
        with self._autocast():
            real = self.net_d(generated.target_audio)
            fake = self.net_d(generated.output.audio.detach())
        return discriminator_loss(scores_of(real), scores_of(fake))[0]

    def _adversarial_losses(self, generated: Generated) -> tuple[Tensor, Tensor]:
        if "together" in self.changes:
            return super()._adversarial_losses(generated)
        spared = "gradients" in self.changes
        self.net_d.requires_grad_(not spared)
        with self._autocast():
            with torch.set_grad_enabled(not spared):
                real_maps = self.net_d(generated.target_audio)
            fake_maps = self.net_d(generated.output.audio)
        self.net_d.requires_grad_(True)
        return generator_loss(scores_of(fake_maps))[0], feature_loss(real_maps, fake_maps)

    def _update(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        if "optimizer" in self.changes:
            return super()._update(net, optimizer)
        self.scaler.unscale_(optimizer)
        norms = [parameter.grad.norm().item() for parameter in net.parameters() if parameter.grad is not None]
        self.scaler.step(optimizer)
        return torch.tensor(norms).norm()


def write_plainly(net: nn.Module) -> None:
    """Make every convolution of the network compute by PyTorch's own operation."""
    for part in net.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)):
            part.forward = MethodType(plain_convolution, part)


def plain_convolution(conv: nn.Module, x: Tensor) -> Tensor:
    weight = conv.normed_weight() if isinstance(conv, NormedWeight) else conv.weight
    if isinstance(conv, nn.ConvTranspose1d):
        return F.conv_transpose1d(x, weight, conv.bias, conv.stride, conv.padding, conv.output_padding)
    convolve = F.conv2d if isinstance(conv, nn.Conv2d) else F.conv1d
    return convolve(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


# -- measuring --------------------------------------------------------------------------------------------------------


def main() -> None:
    arguments = build_parser().parse_args()
    device = pick_device(arguments.device)
    config = load_config(arguments.config) if arguments.config else Config()
    config.train.batch_size, config.train.fp16_run = arguments.batch_size, False
    clock = time.process_time if arguments.clock == "processor" else time.perf_counter
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        next_batch = make_data(Path(folder), config, arguments.seconds)
        began = clock()
        batch = next_batch().to(device)
        data = clock() - began
    if device.type == "cuda":
        return measure_on_gpu(config, device, batch, arguments)
    results = measure(learners(config, device, arguments), batch, arguments.steps, clock)
    report = {"benchmark": "train_step", "device": str(device), "batch_size": arguments.batch_size, "data": data}
    first = results["straightforward"]["step"]
    for name, change in CHANGES.items() if arguments.changes else ():
        print(f"{name}: {change}")
    print(f"{'':16s}" + "".join(f"{part:>15s}" for part in (*PARTS, "step")) + "          times as fast")
    for name, result in results.items():
        spans = "".join(f"{result[part]:13.3f} s" for part in (*PARTS, "step"))
        print(f"{name:16s}{spans}{first / result['step']:16.2f}")
    print(f"reading a batch {data:.3f} s")
    print(json.dumps({**report, "seconds": results}))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="config.json (default: the published default configuration)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each clip (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="rounds measured, after the first (default: %(default)s)")
    parser.add_argument("--half", nargs="*", default=[], choices=("bf16", "fp16"), help="measure half precision too")
    parser.add_argument("--compile", action="store_true", help="on a GPU: measure compiled steps too")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--changes", action="store_true", help="also measure the changes, added one by one")
    return parser


def learners(config: Config, device: torch.device, arguments: argparse.Namespace) -> dict[str, Learner]:
    """Return the learners to compare by name, the straightforward one first."""
    names = tuple(CHANGES)
    counts = range(len(names)) if arguments.changes else range(1)
    made = {
        names[count - 1] if count else "straightforward": StraightforwardLearner(config, device, names[:count])
        for count in counts
    }
    made["float32"] = Learner(config, device)
    for precision in arguments.half:
        made[precision] = Learner(in_precision(config, precision), device)
    return made


def in_precision(config: Config, precision: str) -> Config:
    """Copy the configuration, which is float32, and set ``precision`` if it is bf16 or fp16."""
    copied = Config.from_dict(config.to_dict())
    if precision in ("bf16", "fp16"):
        copied.train.fp16_run, copied.train.half_type = True, precision
    return copied


def make_data(folder: Path, config: Config, seconds: float):
    """Write clips of one length, and return a function that reads a batch of them from disk."""
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


def measure(learners: dict[str, Learner], batch, turns: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Return the seconds of each part of each learner's fastest step. In a round, a first step warms the cache."""
    best = {}
    for turn in range(turns + 1):
        for name, learner in learners.items():
            laps = [timed_step(learner, batch, clock) for _ in range(2)]
            if turn > 0:
                best[name] = min(*laps, best.get(name, laps[0]), key=lambda lap: lap["step"])
    return best


def timed_step(learner: Learner, batch, clock: Callable[[], float]) -> dict[str, float]:
    """Return the seconds of each part of one step, and of the whole step."""
    moments = [clock()]
    generated = learner.generate(batch)
    moments.append(clock())
    learner.discriminator_step([generated])
    moments.append(clock())
    learner.generator_step([generated], adversarial=True)
    moments.append(clock())
    spans = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    return {**dict(zip(PARTS, spans, strict=True)), "step": sum(spans)}


# -- on a GPU ---------------------------------------------------------------------------------------------------------


def measure_on_gpu(config: Config, device: torch.device, batch: Batch, arguments: argparse.Namespace) -> None:
    """Measure and print each variant."""
    results = {}
    print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}, batch {arguments.batch_size}")
    print(f"{'':30s}{'a step':>12s}{'steps/s':>10s}{'memory':>12s}{'times as fast':>16s}")
    for name, make in gpu_learners(config, device, arguments).items():
        learner = make()
        seconds, memory = gpu_steps(learner, batch, 3 * arguments.steps)
        del learner
        torch.compiler.reset()  # otherwise it no longer compiles a function that it has compiled often
        gc.collect()
        torch.cuda.empty_cache()
        results[name] = {"step": seconds, "memory_gib": memory}
        ratio = results["straightforward float32"]["step"] / seconds
        print(f"{name:30s}{1000 * seconds:9.1f} ms{1 / seconds:10.2f}{memory:8.2f} GiB{ratio:16.2f}", flush=True)
    print(json.dumps({"benchmark": "train_step", "device": str(device), "batch_size": arguments.batch_size, **results}))


def gpu_learners(config: Config, device: torch.device, arguments: argparse.Namespace) -> dict[str, Callable]:
    """Return functions that make the learners to compare, by name; PyTorch's default precision comes first."""

    def straightforward(precision: str) -> Learner:
        return StraightforwardLearner(in_precision(config, precision), device, (), cuda_graphs=False)

    def ours(precision: str, graphs: bool, compiled: bool = False) -> Learner:
        allow_tf32(device)
        learner = Learner(in_precision(config, precision), device, cuda_graphs=graphs)
        if compiled:
            learner.compile()
        return learner

    precisions = ["float32", *arguments.half]
    made = {f"straightforward {precision}": partial(straightforward, precision) for precision in precisions}
    for precision in precisions:
        made[f"{precision}, no graphs"] = partial(ours, precision, False)
        made[precision] = partial(ours, precision, True)
        if arguments.compile:
            made[f"{precision}, compiled"] = partial(ours, precision, True, True)
    return made


def gpu_steps(learner: Learner, batch: Batch, steps: int) -> tuple[float, float]:
    """Return the mean seconds of ``steps`` steps, and the peak memory, GiB, that PyTorch reserved."""
    torch.cuda.reset_peak_memory_stats()
    for number in range(3):  # the first runs eagerly, the second captures the graph
        learner.step(batch, number=number)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for number in range(steps):
        learner.step(batch, number=3 + number)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps, torch.cuda.max_memory_reserved() / 2**30


if __name__ == "__main__":
    main()
