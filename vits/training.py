"""A training run of the synthesizer: set-up or resume, evaluation, checkpoints.

The original's habits that cost its users work are not kept: it repeated the interrupted epoch on resume, loaded a
broken checkpoint half, restored the optimizer before the weights (and started afresh when that failed), saved the
untrained model as the base model ``G_0.pth``, and shuffled the clips once for all epochs.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modules.config import Config, ModelConfig, copy_config, load_config
from modules.console import UserError, get_logger, option
from modules.data.sampler import EpochBatches
from modules.device import allow_tf32, pick_device
from modules.training import checkpoint, distributed
from modules.training.autosave import MINUTES
from modules.training.interruption import StopSignal, ignore_stop_signals, stop_signal
from modules.training.loop import TrainingRun
from modules.training.optimizer_state import load_optimizer, load_scaler
from modules.training.run_config import refuse_another_model
from modules.training.run_lock import sole_run
from vencoder import ENCODERS
from vits import checkpoints
from vits.checkpoints import Best
from vits.dataset import Batch, ClipDataset, collate
from vits.logbook import Logbook
from vits.step import Learner, Losses, Sample, mel_of_spec
from vits.validation import Validation

log = get_logger("train")

LOGS = Path("logs")


def train(
    config_path: str | Path,
    model: str,
    device: str | None = None,
    save_every_minutes: float = MINUTES,
    *,
    compiled: bool = False,
    cuda_graphs: bool = True,
) -> int:
    """Train until the config's last epoch or a signal; returns the exit code (128 + the signal's number then).

    ``model`` is the run's name, see ``run_folder``. Of several processes, as torchrun starts them, only rank 0 writes
    files. ``compiled`` lets PyTorch's compiler write kernels; ``cuda_graphs`` False starts every kernel of a step by
    itself.
    """
    folder = run_folder(model)
    config = load_config(config_path)
    ENCODERS[config.model.speech_encoder]  # a model of an unknown encoder could be trained, but never used
    with distributed.process_group(pick_device(device)) as own_device, sole_run(folder):
        distributed.from_the_first(lambda: check_run_config(config, folder))
        run = Run(config, folder, own_device, save_every_minutes, cuda_graphs=cuda_graphs)
        if compiled:
            run.learner.compile()
            run.beginning += "; the first step compiles, for minutes, and so does the first on fewer clips"
        if distributed.is_first():
            copy_config(config_path, folder / "config.json")
        logbook = Logbook(folder, run.step) if distributed.is_first() else distributed.Silent()
        with contextlib.closing(logbook), stop_signal() as stop, compiler_errors():
            return run.loop(logbook, stop)


def run_folder(name: str) -> Path:
    """The folder of a run below ``logs``; its path, ``logs/44k``, is taken for the name ``44k``.

    Raises UserError for what names no folder there, and when an earlier version made ``logs/logs/44k`` of that path.
    """
    below = Path(name)
    if below.parts[:1] == (LOGS.name,):
        below = below.relative_to(LOGS.name)
        if (LOGS / name).is_dir():
            raise UserError(
                f"{LOGS / name} is a run that this name made earlier: move it to {LOGS / below}, or go on with it as "
                f"{LOGS / name}"
            )
    if not below.name or set(below.parts) == {".."}:
        raise UserError(f"'{name}' is no name for a run; give it one of its own, for instance 44k")
    return LOGS / below


# What stays the same when a run resumes. The number of speakers is compared as a shape of the checkpoint.
FREE_MODEL_KEYS = ("n_speakers", "p_dropout", "extra")
FIXED_KEYS = (
    *(f"data.{key}" for key in ("sampling_rate", "filter_length", "hop_length", "win_length", "unit_interpolate_mode")),
    *(f"model.{field.name}" for field in fields(ModelConfig) if field.name not in FREE_MODEL_KEYS),
)


def check_run_config(config: Config, folder: Path) -> None:
    """Raise UserError when the folder has a run of another model than the configuration's."""
    path = folder / "config.json"
    if path.exists() and any(pair.step for pair in checkpoints.pairs(folder)):
        refuse_another_model(config, load_config(path), path, FIXED_KEYS)


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Errors of PyTorch's compiler, which finds no compiler of the system's for instance, as a sentence."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"PyTorch's compiler has failed ({reason}); train without {option('compiled', True)}"
        ) from error


class Run(TrainingRun):
    """A run of ``logs/<model>``. ``best`` is the least mel distance of a validation, and its step."""

    cure_of_losses = "lower train.learning_rate or set train.fp16_run to false"

    def __init__(
        self,
        config: Config,
        folder: Path,
        device: torch.device,
        save_every_minutes: float = 0,
        *,
        cuda_graphs: bool = True,
    ):
        train = config.train
        self.config = config
        self.epochs, self.accumulate_steps, self.log_interval = train.epochs, train.accumulate_steps, train.log_interval
        allow_tf32(device)
        torch.manual_seed(train.seed)  # of the first weights
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        self.validation = Validation(config, device)
        shared = {name: part for name, part in config.to_dict().items() if name != "data"}  # which names local files
        distributed.demand_the_same("sections train, model and spk", shared)
        frames = self.dataset.frames()
        clips = [(*path.parts[-2:], length) for path, length in zip(self.dataset.paths, frames, strict=True)]
        distributed.demand_the_same("clips to train on", clips)
        batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            rank=distributed.rank(), world_size=distributed.world_size(), accumulated=train.accumulate_steps,
            frames=frames,
        )  # fmt: skip
        super().__init__(folder, device, batches, self._loader(batches, device), save_every_minutes)
        self.learner = Learner(config, device, cuda_graphs=cuda_graphs)
        less = f", or give {option('cuda_graphs', False)}, which takes less" if self.learner.alone.enabled else ""
        self.cure_of_memory = f"halve it, or see what fits with {option('find_batch_size')}{less}"
        self.best = Best()
        self.beginning = self.resume()
        distributed.spread_weights(self.learner.net_g)
        distributed.spread_weights(self.learner.net_d)

    def _loader(self, batches: EpochBatches, device: torch.device) -> DataLoader:
        # On a CPU the step itself wants every core; in memory there is nothing to wait for.
        workers = 0 if self.config.train.all_in_mem or device.type == "cpu" else min(5, os.cpu_count() or 1)
        return DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers,
            pin_memory=device.type == "cuda", worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # without one, torch's own is drawn from
        )  # fmt: skip

    # -- beginning and continuing --------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Continue from the newest good pair of the run's folder; a pair of step 0 is a base model to start from.

        Returns a sentence that says which it was.
        """
        found = distributed.from_the_first(lambda: checkpoints.read_newest(self.folder))  # elsewhere may be no folder
        if found is None:
            return f"a new run in {self.folder}"
        pair, (of_g, of_d, state) = found
        learner = self.learner
        if pair.step == 0:
            checkpoint.load_base_weights(learner.net_g, of_g["model"], pair.generator)
            checkpoint.load_base_weights(learner.net_d, of_d["model"], pair.discriminator)
            return f"a new run in {self.folder} from the base model {pair.generator.name}"
        checkpoint.load_weights(learner.net_g, of_g["model"], pair.generator)
        checkpoint.load_weights(learner.net_d, of_d["model"], pair.discriminator)
        load_optimizer(learner.optim_g, of_g.get("optimizer"), pair.generator)
        load_optimizer(learner.optim_d, of_d.get("optimizer"), pair.discriminator)
        self.step = self.saved_step = pair.step
        if state is None:  # written by the original, which counts epochs only, or broken
            self.epoch = max(checkpoint.whole_number(of_d, "iteration", pair.discriminator, 1), 1)
        else:
            self.epoch, self.batch = (checkpoint.whole_number(state, name, pair.state) for name in ("epoch", "batch"))
            load_scaler(learner.scaler, state.get("scaler"), pair.state)
        if distributed.is_first():
            self.passing = [saved for saved in checkpoints.pairs(self.folder) if saved.is_passing()]
            self._find_best(of_g, state)
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def _find_best(self, generator: dict, state: dict | None) -> None:
        self.best = checkpoints.read_best(self.folder)
        of_this_step = Best.of((state or {}).get("best")) or self.best
        if of_this_step.step == self.step != self.best.step:  # a crash came between the pair and its copy
            self._keep_best(generator, of_this_step)

    def _keep_best(self, generator: dict, best: Best) -> None:
        """Keep the generator's checkpoint as the best one; where that fails, the former is the best still."""
        try:
            checkpoints.write_best(self.folder, generator, best)
        except UserError as error:
            log.warning("%s. Training goes on", error)
            best = checkpoints.read_best(self.folder)
        self.best = best

    def save(self, *, passing: bool = False) -> None:
        """Write the pair of this step and its extra state, then delete what ``keep_ckpts`` does not keep.

        A ``passing`` pair is there until the next one is. Raises UserError, and what is there stays, when it cannot.
        """
        pair = checkpoints.Pair(self.folder, self.step)
        learner = self.learner
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "best": list(self.best),
            "passing": passing,
            "scaler": learner.scaler.state_dict(),
        }
        networks = (learner.net_g, learner.optim_g), (learner.net_d, learner.optim_d)
        contents = [
            {
                "model": net.state_dict(),
                "iteration": self.epoch,
                "optimizer": optimizer.state_dict(),
                "learning_rate": self.config.train.learning_rate,
            }
            for net, optimizer in networks
        ]
        pair.write(*contents, state)
        self.saved_step = self.step
        log.info("saved %s and %s", pair.generator, pair.discriminator.name)
        if self.best.step == self.step:
            self._keep_best(contents[0], self.best)
        for former in self.passing:
            former.delete()
        self.passing = [pair] if passing else []
        if not passing:
            checkpoints.delete_old(self.folder, self.config.train.keep_ckpts, self.step)

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_from(self, *batches: Batch) -> tuple[tuple[Sample, Losses], Tensor]:
        self.learner.set_learning_rate(self.epoch)
        adversarial = self.step >= self.config.train.discriminator_start_step
        sample, losses = self.learner.step(*batches, number=self.step, adversarial=adversarial)
        return (sample, losses), losses.grad_norm_g + losses.grad_norm_d

    def shown(self, result: tuple[Sample, Losses]) -> dict[str, str]:
        _, losses = result
        values = {"mel": f"{losses.generator['mel']:.2f}", "g": f"{losses.total:.2f}"}
        return {**values, "d": f"{losses.discriminator:.2f}", "lr": f"{self.learner.optim_g.rate:.3g}"}

    def not_finite(self, result: tuple[Sample, Losses]) -> str:
        values = {name: float(value) for name, value in result[1].by_name().items()}
        return ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))

    def record(self, logbook: Logbook, result: tuple[Sample, Losses]) -> None:
        sample, losses = result
        percent = 100 * min(self.batch / len(self.batches), 1)
        all_mel = mel_of_spec(sample.spec, self.config.data)
        logbook.record(self.step, self.epoch, percent, self.learner.optim_g.rate, losses, sample, all_mel)
        logbook.pace(self.step, self.pace.report(self.step), losses, self.bad_steps)

    def keep(self, logbook: Logbook, stop: StopSignal) -> None:
        if self.step % self.config.train.eval_interval == 0:
            self.evaluate(logbook, stop)
        elif self.autosave.due:
            self.try_to_save(passing=True)

    def evaluate(self, logbook: Logbook, stop: StopSignal) -> None:
        """Sing the validation clips and save; where the mel distance is the least so far, as the best model too."""
        former, metrics = self.best, self.validation.run(self.learner.net_g, logbook, self.step, stop)
        if metrics is not None and metrics.mel_distance < self.best.distance:
            self.best = Best(metrics.mel_distance, self.step)
        if not self.try_to_save():
            self.best = former
