"""A training run: set-up or resume, the loop, evaluation, checkpoints, and a clean end when it is told to stop.

The original's habits that cost its users work are not kept: it repeated the interrupted epoch on resume, loaded a
broken checkpoint half, restored the optimizer before the weights (and started afresh when that failed), saved the
untrained model as the base model ``G_0.pth``, and shuffled the clips once for all epochs.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from modules import checkpoint, distributed
from modules.atomic_file import write_text
from modules.autosave import MINUTES, Autosave
from modules.config import Config, load_config
from modules.console import UserError, get_logger, progress
from modules.device import allow_tf32, pick_device
from modules.epoch_batches import EpochBatches, in_steps
from modules.pace import Pace
from modules.stop_signal import StopSignal, ignore_stop_signals, stop_signal
from vencoder import ENCODERS
from vits.dataset import Batch, ClipDataset, collate
from vits.logbook import Logbook
from vits.step import Generated, Learner, Losses
from vits.validation import Validation

log = get_logger("train")

MOST_BAD_STEPS = 50  # in a row; fp16's loss scale needs up to 16 to settle
NONE_BEST = (math.inf, 0)


def train(
    config_path: str | Path, model: str, device: str | None = None, save_every_minutes: float = MINUTES
) -> int:
    """Train until the config's last epoch or a signal; returns the exit code (128 + the signal's number then).

    Of several processes, as torchrun starts them, the first alone writes files.
    """
    config = load_config(config_path)
    ENCODERS[config.model.speech_encoder]  # a model of an unknown encoder could be trained, but never used
    folder = Path("logs") / model
    with distributed.process_group(pick_device(device)) as own_device:
        run = Run(config, folder, own_device, save_every_minutes)
        if distributed.is_first():
            write_text(folder / "config.json", Path(config_path).read_text(encoding="utf-8-sig"))
        logbook = Logbook(folder) if distributed.is_first() else distributed.Silent()
        with contextlib.closing(logbook), stop_signal() as stop:
            return run.loop(logbook, stop)


class Run:
    """The state of a run: what it has learnt, on what data, and how far it is.

    ``step`` counts optimisation steps done, ``epoch`` is the current one (from 1), ``batch`` the batches of it done, by
    all processes together. Everything that is drawn is a function of the seed and of these, so a run goes on exactly
    from them, in as many processes as it is given.
    ``best`` is the least mel distance of a validation, and its step.
    """

    def __init__(self, config: Config, folder: Path, device: torch.device, save_every_minutes: float = 0):
        train = config.train
        self.config, self.folder, self.device = config, folder, device
        allow_tf32(device)
        torch.manual_seed(train.seed)  # of the first weights
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        self.validation = Validation(config, device)
        distributed.demand_the_same("sections train and model", (train.to_dict(), config.model.to_dict()))
        distributed.demand_the_same("clips to train on", [path.parts[-2:] for path in self.dataset.paths])
        self.batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            process=distributed.rank(), processes=distributed.world_size(), accumulated=train.accumulate_steps,
        )  # fmt: skip
        self.loader = self._loader()
        self.learner = Learner(config, device)
        self.step, self.epoch, self.batch, self.saved_step = 0, 1, 0, 0
        self.bad_steps, self.bad_in_a_row, self.best = 0, 0, NONE_BEST
        self.stopping = 0  # the signal that all processes have agreed to stop for
        self.autosave, self.passing = Autosave(save_every_minutes), []
        self.beginning = self.resume()
        distributed.spread_weights(self.learner.net_g)
        distributed.spread_weights(self.learner.net_d)

    def _loader(self) -> DataLoader:
        # On a CPU the step itself wants every core; in memory there is nothing to wait for.
        workers = 0 if self.config.train.all_in_mem or self.device.type == "cpu" else min(5, os.cpu_count() or 1)
        return DataLoader(
            self.dataset, batch_sampler=self.batches, collate_fn=collate, num_workers=workers,
            pin_memory=self.device.type == "cuda", persistent_workers=workers > 0, worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # each start of an epoch draws from it, and not from the one that is saved
        )  # fmt: skip

    # -- beginning and continuing --------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Continue from the newest good pair of the run's folder; a pair of step 0 is a base model to start from.

        Returns a sentence that says which it was.
        """
        found = distributed.from_the_first(lambda: checkpoint.read_newest(self.folder))  # elsewhere may be no folder
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
        for optimizer, content in ((learner.optim_g, of_g), (learner.optim_d, of_d)):
            if content.get("optimizer"):
                optimizer.load_state_dict(content["optimizer"])
        self.step = self.saved_step = distributed.from_the_first(pair.recorded_step)
        if state is None:  # written by the original: it counts epochs only
            self.epoch = max(int(of_d.get("iteration", 1)), 1)
        else:
            self.epoch, self.batch = state["epoch"], state["batch"]
            if state["scaler"]:  # empty where it was off
                learner.scaler.load_state_dict(state["scaler"])
            if distributed.is_first():
                self.passing = [saved for saved in checkpoint.pairs(self.folder) if saved.is_passing()]
                self._find_best(pair, state)
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def _find_best(self, pair: checkpoint.Pair, state: dict) -> None:
        best = tuple(state.get("best", NONE_BEST))
        if best[1] == self.step:  # a crash may have come between the pair and its copy
            checkpoint.keep_best(pair)
        self.best = best if checkpoint.best_generator(self.folder).exists() else NONE_BEST

    def save(self, *, passing: bool = False) -> None:
        """Write the pair of this step and its extra state, then delete what ``keep_ckpts`` does not keep.

        A ``passing`` pair is there until the next one is. Raises UserError, and what is there stays, when it cannot.
        """
        pair = checkpoint.Pair(self.folder, self.step)
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
        if self.best[1] == self.step:
            checkpoint.keep_best(pair)
        for former in self.passing:
            former.delete()
        self.passing = [pair] if passing else []
        if not passing:
            checkpoint.delete_old(self.folder, self.config.train.keep_ckpts, self.step)

    def try_to_save(self, *, passing: bool = False) -> bool:
        """Save; when that fails say so and go on: what is there is intact, and the next time there may be room."""
        self.autosave.restart()
        try:
            self.save(passing=passing)
        except UserError as error:
            log.warning("step %d is not saved: %s. Training goes on", self.step, error)
            return False
        return True

    # -- the loop ------------------------------------------------------------------------------------------------------

    def loop(self, logbook: Logbook, stop: StopSignal) -> int:
        """Train to the last epoch or until ``stop`` has come; the last step is always saved, even before an error."""
        epochs = self.config.train.epochs
        log.info(self.beginning)
        if self.batches.per_step > 1:
            log.info(self.batches.plan())
        if self.epoch > epochs:
            log.info("all %d epochs are done; raise train.epochs to go on", epochs)
            return 0
        if self.device.type == "cpu":
            log.info("training on the CPU, which is slow; with a GPU install the PyTorch build made for it")
        total = self.step + (epochs - self.epoch) * self.batches.steps() + self.batches.steps(self.batch)
        self.pace = Pace(self.step, total, self.device)
        with progress(total=total, initial=self.step, description="training", unit="step") as bar:
            try:
                while self.epoch <= epochs and not self.stopping:
                    self.run_epoch(logbook, stop, bar)
            finally:
                if distributed.is_first() and self.step > self.saved_step:
                    self.save()
        if self.bad_steps:
            log.warning("%d steps had losses that were not finite and were skipped", self.bad_steps)
        if self.stopping:
            log.info("stopped at step %d; the same command goes on from there", self.step)
            return 128 + self.stopping
        return 0

    def run_epoch(self, logbook: Logbook, stop: StopSignal, bar) -> None:
        """The rest of the current epoch; returns early, at a step's end, when a stop signal has come."""
        train = self.config.train
        began = time.monotonic()
        self.learner.set_learning_rate(self.epoch)
        self.batches.start(self.epoch, self.batch)
        for batches in self.pace.batches(in_steps(self.loader, train.accumulate_steps)):
            generated, losses = self.learn(*(batch.to(self.device) for batch in batches))
            self.pace.learnt()
            self.batch += self.batches.per_step
            bar.update()
            self.tell(logbook, bar, generated, losses)
            if distributed.is_first() and self.step % train.eval_interval == 0:
                self.evaluate(logbook)
            elif distributed.is_first() and self.autosave.due:
                self.try_to_save(passing=True)
            self.stopping = distributed.largest(stop.number)  # all wait for the first here, and stop at the same step
            if self.stopping:
                break
        if self.batch >= len(self.batches):
            log.debug("====> Epoch: %d, cost %.2f s", self.epoch, time.monotonic() - began)
            self.epoch, self.batch = self.epoch + 1, 0

    def tell(self, logbook: Logbook, bar, generated: Generated, losses: Losses) -> None:
        """Show a step on the bar every ten steps, and enter it in the logbook every ``log_interval``."""
        if self.step % 10 == 0:
            bar.set_postfix(
                epoch=self.epoch, mel=f"{float(losses.mel):.2f}", g=f"{float(losses.total):.2f}",
                d=f"{float(losses.discriminator):.2f}", data=f"{self.pace.data_share:.0%}", skipped=self.bad_steps,
                refresh=False,
            )  # fmt: skip
        if self.step % self.config.train.log_interval == 0:
            rate = self.learner.optim_g.param_groups[0]["lr"]
            logbook.record(self.step, self.epoch, 100 * min(self.batch / len(self.batches), 1), rate, losses, generated)
            logbook.pace(self.step, self.pace.report(self.step), losses, self.bad_steps)

    def learn(self, *batches: Batch) -> tuple[Generated, Losses]:
        """One step; counts those whose losses were not finite and gives up after many in a row (UserError)."""
        adversarial = self.step >= self.config.train.discriminator_start_step
        try:
            generated, losses = self.learner.step(*batches, number=self.step, adversarial=adversarial)
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"the device's memory is too small for train.batch_size {self.config.train.batch_size}; halve it, or "
                "see what fits with --find_batch_size"
            ) from None
        self.step += 1
        if torch.isfinite(losses.grad_norm_g + losses.grad_norm_d):
            self.bad_in_a_row = 0
            return generated, losses
        self.bad_steps, self.bad_in_a_row = self.bad_steps + 1, self.bad_in_a_row + 1
        log.debug("step %d skipped: %s", self.step, describe(losses))
        if self.bad_in_a_row >= MOST_BAD_STEPS:
            raise UserError(
                f"the losses have not been finite for {self.bad_in_a_row} steps ({describe(losses)}); lower "
                "train.learning_rate or set train.fp16_run to false, and run the same command: it goes on from step "
                f"{self.step}"
            )
        return generated, losses

    def evaluate(self, logbook: Logbook) -> None:
        """Sing the validation clips and save; where the mel distance is the least so far, as the best model too."""
        former, metrics = self.best, self.validation.run(self.learner.net_g, logbook, self.step)
        if metrics.mel_distance < self.best[0]:
            self.best = metrics.mel_distance, self.step
        if not self.try_to_save():
            self.best = former


def describe(losses: Losses) -> str:
    """Which losses are not finite, in words."""
    values = {name: float(value) for name, value in vars(losses).items()}
    return ", ".join(f"{name} {value}" for name, value in values.items() if not torch.isfinite(torch.tensor(value)))
