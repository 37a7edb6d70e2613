"""A training run: set-up or resume, the loop, evaluation, checkpoints, and a clean end when it is told to stop.

The original's habits that cost its users work are not kept: it repeated the interrupted epoch on resume, loaded a
broken checkpoint half, restored the optimizer before the weights (and started afresh when that failed), saved the
untrained model as the base model ``G_0.pth``, and shuffled the clips once for all epochs.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from modules import checkpoint
from modules.atomic_file import write_text
from modules.config import Config, load_config
from modules.console import UserError, get_logger, progress
from modules.device import pick_device, random_state, set_random_state
from modules.epoch_batches import EpochBatches
from modules.stop_signal import StopSignal, ignore_stop_signals, stop_signal
from vencoder import ENCODERS
from vits.dataset import Batch, ClipDataset, collate
from vits.logbook import Logbook
from vits.step import Learner, Losses, mel_of

log = get_logger("train")

MOST_BAD_STEPS = 50  # in a row; fp16's loss scale needs up to 16 to settle


def train(config_path: str | Path, model: str, device: str | None = None) -> int:
    """Train until the config's last epoch or a signal; returns the exit code (128 + the signal's number then)."""
    config = load_config(config_path)
    ENCODERS[config.model.speech_encoder]  # a model of an unknown encoder could be trained, but never used
    folder = Path("logs") / model
    run = Run(config, folder, pick_device(device))
    write_text(folder / "config.json", Path(config_path).read_text(encoding="utf-8-sig"))
    with contextlib.closing(Logbook(folder)) as logbook, stop_signal() as stop:
        return run.loop(logbook, stop)


class Run:
    """The state of a run: what it has learnt, on what data, and how far it is.

    ``step`` counts optimisation steps done, ``epoch`` is the current one (from 1), ``batch`` the batches of it done.
    """

    def __init__(self, config: Config, folder: Path, device: torch.device):
        train = config.train
        self.config, self.folder, self.device = config, folder, device
        torch.manual_seed(train.seed)
        self.dataset = ClipDataset(config.data.training_files, config, training=True)
        self.validation = ClipDataset(config.data.validation_files, config, training=False)
        self.batches = EpochBatches(len(self.dataset), train.batch_size, train.seed)
        self.loader = self._loader()
        self.learner = Learner(config, device)
        self.step, self.epoch, self.batch, self.saved_step = 0, 1, 0, 0
        self.bad_steps, self.bad_in_a_row = 0, 0
        self.beginning = self.resume()

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
        found = checkpoint.read_newest(self.folder)
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
        self.step = self.saved_step = pair.step
        if state is None:  # written by the original: it counts epochs only
            self.epoch = max(int(of_d.get("iteration", 1)), 1)
        else:
            self.epoch, self.batch = state["epoch"], state["batch"]
            if state["scaler"]:  # empty where it was off
                learner.scaler.load_state_dict(state["scaler"])
            set_random_state(state["random"], self.device)
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def save(self) -> None:
        """Write the pair of this step and its extra state, then delete what ``keep_ckpts`` does not keep."""
        pair = checkpoint.Pair(self.folder, self.step)
        learner = self.learner
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "scaler": learner.scaler.state_dict(),
            "random": random_state(self.device),
        }
        # The state first: a pair without it would be taken for one of the original's.
        checkpoint.save_checkpoint(pair.state, state)
        for path, net, optimizer in (
            (pair.generator, learner.net_g, learner.optim_g),
            (pair.discriminator, learner.net_d, learner.optim_d),
        ):
            content = {
                "model": net.state_dict(),
                "iteration": self.epoch,
                "optimizer": optimizer.state_dict(),
                "learning_rate": self.config.train.learning_rate,
            }
            checkpoint.save_checkpoint(path, content)
        self.saved_step = self.step
        log.info("saved %s and %s", pair.generator, pair.discriminator.name)
        checkpoint.delete_old(self.folder, self.config.train.keep_ckpts, self.step)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def loop(self, logbook: Logbook, stop: StopSignal) -> int:
        """Train to the last epoch or until ``stop`` has come; the last step is always saved, even before an error."""
        epochs = self.config.train.epochs
        log.info(self.beginning)
        if self.epoch > epochs:
            log.info("all %d epochs are done; raise train.epochs to go on", epochs)
            return 0
        if self.device.type == "cpu":
            log.info("training on the CPU, which is slow; with a GPU install the PyTorch build made for it")
        total = epochs * len(self.batches)
        with progress(total=total, initial=self.step, description="training", unit="step") as bar:
            try:
                while self.epoch <= epochs and not stop.number:
                    self.run_epoch(logbook, stop, bar)
            finally:
                if self.step > self.saved_step:
                    self.save()
        if self.bad_steps:
            log.warning("%d steps had losses that were not finite and were skipped", self.bad_steps)
        if stop.number:
            log.info("stopped at step %d; the same command goes on from there", self.step)
            return 128 + stop.number
        return 0

    def run_epoch(self, logbook: Logbook, stop: StopSignal, bar) -> None:
        """The rest of the current epoch; returns early, at a step's end, when a stop signal has come."""
        train = self.config.train
        began = time.monotonic()
        self.learner.set_learning_rate(self.epoch)
        self.batches.start(self.epoch, self.batch)
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            generated, losses = self.learn(batch.to(self.device))
            self.batch += 1
            bar.update()
            if self.step % 10 == 0:
                bar.set_postfix(
                    epoch=self.epoch, mel=f"{float(losses.mel):.2f}", g=f"{float(losses.total):.2f}",
                    d=f"{float(losses.discriminator):.2f}", refresh=False,
                )  # fmt: skip
            if self.step % train.log_interval == 0:
                rate = self.learner.optim_g.param_groups[0]["lr"]
                logbook.record(self.step, self.epoch, 100 * self.batch / len(self.batches), rate, losses, generated)
            if self.step % train.eval_interval == 0:
                self.evaluate(logbook)
                self.save()
            if stop.number:
                break
        if self.batch >= len(self.batches):
            log.debug("====> Epoch: %d, cost %.2f s", self.epoch, time.monotonic() - began)
            self.epoch, self.batch = self.epoch + 1, 0

    def learn(self, batch: Batch):
        """One step; counts those whose losses were not finite and gives up after many in a row (UserError)."""
        adversarial = self.step >= self.config.train.discriminator_start_step
        try:
            generated, losses = self.learner.step(batch, adversarial=adversarial)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the device's memory is too small for train.batch_size {self.config.train.batch_size}; halve it"
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

    @torch.inference_mode()
    def evaluate(self, logbook: Logbook) -> None:
        """Sing every validation clip with the pitch of the recording, and show sound and spectrograms."""
        data, net_g = self.config.data, self.learner.net_g
        net_g.eval()
        for index in range(len(self.validation)):
            batch = collate([self.validation[0, index]])
            if isinstance(batch, UserError):
                raise batch
            clip = batch.to(self.device)
            made, _ = net_g.infer(clip.c, clip.f0, clip.uv, clip.speaker_id, volume=clip.volume)
            logbook.evaluation(self.step, index, made[0, 0], clip.audio[0, 0], data.sampling_rate)
            last = mel_of(made, data)[0], mel_of(clip.audio, data)[0]
        logbook.evaluation_mels(self.step, *last)
        net_g.train()


def describe(losses: Losses) -> str:
    """Which losses are not finite, in words."""
    values = {name: float(value) for name, value in vars(losses).items()}
    return ", ".join(f"{name} {value}" for name, value in values.items() if not torch.isfinite(torch.tensor(value)))
