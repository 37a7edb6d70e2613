"""A training run of the diffusion model: set-up or resume, the loop, validation, checkpoints, and a clean end.

Everything that is drawn is a function of the seed and of the step, epoch or clip that it is drawn for. So a run is
where its step counter says, and goes on from there exactly with the optimizer's state of that step.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion.dataset import DiffusionBatch, DiffusionDataset, collate_diffusion
from diffusion.logbook import Logbook
from diffusion.step import Learner, learning_rate
from diffusion.validation import Validation, load_vocoder
from modules import checkpoint, distributed
from modules.autosave import MINUTES, Autosave
from modules.config import DiffusionConfig, load_diffusion_config, save_diffusion_config
from modules.console import UserError, get_logger, progress
from modules.device import allow_tf32, pick_device
from modules.epoch_batches import EpochBatches, in_steps
from modules.pace import Pace
from modules.stop_signal import StopSignal, ignore_stop_signals, stop_signal
from vencoder import ENCODERS

log = get_logger("train_diff")

MOST_BAD_STEPS = 50  # in a row; fp16's loss scale needs up to 16 to settle


def train(config_path: str | Path, device: str | None = None, save_every_minutes: float = MINUTES) -> int:
    """Train until the config's last epoch or a signal; returns the exit code (128 + the signal's number then).

    ``device`` goes before the configuration's. Raises UserError when anything that a run needs is missing or wrong.
    """
    config = load_diffusion_config(config_path)
    ENCODERS[config.data.encoder]  # a model of an unknown encoder could be trained, but never used
    with distributed.process_group(choose_device(config, device)) as own_device:
        run = Run(config, own_device, save_every_minutes)
        if distributed.is_first():
            save_diffusion_config(config, run.folder / "config.yaml")
        logbook = Logbook(run.folder) if distributed.is_first() else distributed.Silent()
        with contextlib.closing(logbook), stop_signal() as stop:
            return run.loop(logbook, stop)


def choose_device(config: DiffusionConfig, name: str | None) -> torch.device:
    """The device called ``name``, else the configuration's, or, said in a line, the best there is in its stead."""
    if name:
        return pick_device(name)
    alone = distributed.place()[1] == 1  # of several processes each takes a GPU of its own
    wanted = f"cuda:{config.env.gpu_id}" if config.device == "cuda" and alone else config.device
    try:
        return pick_device(wanted)
    except UserError:
        best = pick_device()
        log.info("this machine has no %s, which the configuration asks for (device): using %s", wanted, best)
        return best


class Run:
    """The state of a run: what it has learnt, on what data, and how far it is.

    ``step`` counts optimisation steps done, ``epoch`` is the current one (from 1), ``batch`` the batches of it done, by
    all processes together.
    """

    def __init__(self, config: DiffusionConfig, device: torch.device, save_every_minutes: float = 0):
        train = config.train
        if train.amp_dtype == "fp16" and device.type == "cpu":
            raise UserError("train.amp_dtype fp16 needs a GPU; on a CPU set it to bf16 or fp32")
        self.config, self.folder, self.device = config, Path(config.env.expdir), device
        allow_tf32(device)
        vocoder = load_vocoder(config, device)
        self.learner = Learner(config, vocoder.n_mels, device)
        self._check_sampling()
        self.dataset = DiffusionDataset(
            config.data.training_files, config, n_mels=vocoder.n_mels, training=True, device=device
        )
        self.validation = Validation(config, vocoder, device)
        distributed.demand_the_same("sections train and model", (train.to_dict(), config.model.to_dict()))
        distributed.demand_the_same("clips to train on", [path.parts[-2:] for path in self.dataset.paths])
        self.batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            process=distributed.rank(), processes=distributed.world_size(), accumulated=train.accumulate_steps,
        )  # fmt: skip
        self.loader = self._loader()
        self.step, self.epoch, self.batch, self.saved_step = 0, 1, 0, 0
        self.bad_steps, self.bad_in_a_row = 0, 0
        self.stopping = 0  # the signal that all processes have agreed to stop for
        self.autosave, self.passing = Autosave(save_every_minutes), []
        self.beginning = self.resume()
        distributed.spread_weights(self.learner.model)

    def _check_sampling(self) -> None:
        """Raise UserError now, and not at the first validation, when the configuration's sampling is impossible."""
        model, infer = self.learner.model, self.config.infer
        try:
            model.plan(model.is_shallow, None, infer.method, infer.speedup)
        except UserError:
            raise UserError(
                f"infer.speedup {infer.speedup} leaves infer.method {infer.method} too few of the model's "
                f"{model.k_step_max} steps (model.k_step_max, model.timesteps) to validate with; lower infer.speedup"
            ) from None

    def _loader(self) -> DataLoader:
        # On a CPU the step itself wants every core; what lies on a GPU already, no worker can hand over.
        to_be_moved = self.device.type != "cpu" and self.dataset.device.type == "cpu"
        workers = self.config.train.num_workers if to_be_moved else 0
        return DataLoader(
            self.dataset, batch_sampler=self.batches, collate_fn=collate_diffusion, num_workers=workers,
            pin_memory=to_be_moved and self.device.type == "cuda", persistent_workers=workers > 0,
            worker_init_fn=ignore_stop_signals, generator=torch.Generator(),  # without one, torch's own is drawn from
        )  # fmt: skip

    # -- beginning and continuing --------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Continue from the newest good checkpoint of the run's folder; that of step 0 is a base model to start from.

        Returns a sentence that says which it was.
        """
        # The first alone reads: on other machines there may be no such folder.
        found = distributed.from_the_first(lambda: checkpoint.read_newest_diffusion(self.folder))
        if found is None:
            return f"a new run in {self.folder}"
        saved, (content, state) = found
        learner = self.learner
        if saved.step == 0:
            checkpoint.load_base_weights(learner.model, content["model"], saved.model)
            return f"a new run in {self.folder} from the base model {saved.model.name}"
        checkpoint.load_weights(learner.model, content["model"], saved.model, config="diffusion configuration")
        optimizer = content.get("optimizer") or (state or {}).get("optimizer")
        if optimizer:
            learner.optimizer.load_state_dict(optimizer)
        else:
            log.warning("%s comes without its optimizer's state, so that begins afresh", saved.model)
        if state and state["scaler"]:  # empty where it was off
            learner.scaler.load_state_dict(state["scaler"])
        self.step = self.saved_step = distributed.from_the_first(saved.recorded_step)
        if state and "epoch" in state:
            self.epoch, self.batch = state["epoch"], state["batch"]
        else:
            epochs, steps = divmod(self.step, self.batches.steps())
            self.epoch, self.batch = epochs + 1, steps * self.batches.per_step
        if distributed.is_first():
            self.passing = [there for there in checkpoint.diffusion_checkpoints(self.folder) if there.is_passing()]
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def save(self, *, passing: bool = False) -> None:
        """Write the checkpoint of this step and its extra state; a ``passing`` one is there until the next one is.

        Raises UserError, and what is there stays, when that fails.
        """
        saved = checkpoint.DiffusionCheckpoint(self.folder, self.step)
        learner = self.learner
        content = {"global_step": self.step, "model": learner.model.state_dict()}
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "passing": passing,
            "scaler": learner.scaler.state_dict(),
        }
        (content if self.config.train.save_opt else state)["optimizer"] = learner.optimizer.state_dict()
        saved.write(content, state)
        self.saved_step = self.step
        log.info("saved %s", saved.model)
        for former in self.passing:
            former.delete()
        self.passing = [saved] if passing else []

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
        logbook.begin(sum(parameter.numel() for parameter in self.learner.model.parameters()), self.step)
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
        train, epoch, steps = self.config.train, self.epoch, self.batches.steps()
        place = steps - self.batches.steps(self.batch)
        self.batches.start(epoch, self.batch)
        for batches in self.pace.batches(in_steps(self.loader, train.accumulate_steps)):
            loss = self.learn(*(batch.to(self.device) for batch in batches))
            self.pace.learnt()
            place += 1
            bar.update()
            if self.step % 10 == 0:
                bar.set_postfix(
                    epoch=epoch, loss=f"{float(loss):.4f}", data=f"{self.pace.data_share:.0%}",
                    skipped=self.bad_steps, refresh=False,
                )  # fmt: skip
            if self.step % train.interval_log == 0:
                logbook.record(self.step, epoch, place, steps, learning_rate(train, self.step), float(loss))
                logbook.pace(self.step, self.pace.report(self.step), float(self.norm), self.bad_steps)
            if distributed.is_first():
                self.keep(logbook)
            self.stopping = distributed.largest(stop.number)  # all wait for the first here, and stop at the same step
            if self.stopping:
                break

    def keep(self, logbook: Logbook) -> None:
        """Save where it is time to, every ``interval_val`` steps to hear the validation clips too."""
        train = self.config.train
        if self.step % train.interval_val == 0:
            if self.try_to_save():
                checkpoint.delete_old_diffusion(self.folder, self.step, train.interval_val, train.interval_force_save)
            self.validation.run(self.learner.model, logbook, self.step)
        elif self.autosave.due:
            self.try_to_save(passing=True)

    def learn(self, *batches: DiffusionBatch) -> Tensor:
        """One step; counts those whose losses were not finite and gives up after many in a row (UserError)."""
        try:
            loss, self.norm = self.learner.step(*batches, number=self.step + 1)
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"the device's memory is too small for train.batch_size {self.config.train.batch_size}; halve it, or "
                "set train.cache_device to cpu if it is not"
            ) from None
        self.step, self.batch = self.step + 1, self.batch + self.batches.per_step
        if self.batch >= len(self.batches):
            self.epoch, self.batch = self.epoch + 1, 0
        if torch.isfinite(self.norm):
            self.bad_in_a_row = 0
            return loss
        self.bad_steps, self.bad_in_a_row = self.bad_steps + 1, self.bad_in_a_row + 1
        log.debug("step %d skipped: its loss is %g, its gradient's norm %g", self.step, loss, self.norm)
        if self.bad_in_a_row >= MOST_BAD_STEPS:
            raise UserError(
                f"the losses have not been finite for {self.bad_in_a_row} steps; lower train.lr or set "
                f"train.amp_dtype to fp32, and run the same command: it goes on from step {self.step}"
            )
        return loss
