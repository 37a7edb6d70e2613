"""A training run of the diffusion model: set-up or resume, validation, checkpoints.

Everything that is drawn is a function of the seed and of the step, epoch or clip that it is drawn for. So a run is
where its step counter says, and goes on from there exactly with the optimizer's state of that step.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion.checkpoints import (
    DiffusionCheckpoint,
    delete_old_diffusion,
    diffusion_checkpoints,
    read_newest_diffusion,
)
from diffusion.dataset import DiffusionBatch, DiffusionDataset, collate_diffusion
from diffusion.logbook import Logbook
from diffusion.step import Learner, learning_rate
from diffusion.validation import Validation, load_vocoder
from modules.config import DiffusionConfig, load_diffusion_config, save_diffusion_config
from modules.console import UserError, get_logger
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

log = get_logger("train_diff")


def train(config_path: str | Path, device: str | None = None, save_every_minutes: float = MINUTES) -> int:
    """Train until the config's last epoch or a signal; returns the exit code (128 + the signal's number then).

    ``device`` goes before the configuration's. Raises UserError when anything that a run needs is missing or wrong.
    """
    config = load_diffusion_config(config_path)
    ENCODERS[config.data.encoder]  # a model of an unknown encoder could be trained, but never used
    processes = distributed.process_group(choose_device(config, device))
    with processes as own_device, sole_run(Path(config.env.expdir)):
        distributed.from_the_first(lambda: check_run_config(config))
        run = Run(config, own_device, save_every_minutes)
        if distributed.is_first():
            save_diffusion_config(config, run.folder / "config.yaml")
        logbook = Logbook(run.folder, run.step) if distributed.is_first() else distributed.Silent()
        with contextlib.closing(logbook), stop_signal() as stop:
            logbook.begin(sum(parameter.numel() for parameter in run.learner.model.parameters()))
            return run.loop(logbook, stop)


# What stays the same when a run resumes; the other keys of the model are shapes of the checkpoint.
FIXED_KEYS = (
    "data.encoder", "data.sampling_rate", "data.block_size", "data.unit_interpolate_mode", "model.timesteps",
    "vocoder.type",
)  # fmt: skip


def check_run_config(config: DiffusionConfig) -> None:
    """Raise UserError when ``env.expdir`` has a run of another model than the configuration's."""
    folder = Path(config.env.expdir)
    path = folder / "config.yaml"
    if path.exists() and any(saved.step for saved in diffusion_checkpoints(folder)):
        refuse_another_model(config, load_diffusion_config(path), path, FIXED_KEYS)


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


class Run(TrainingRun):
    """A run of the configuration's ``env.expdir``."""

    cure_of_memory = "halve it, or set train.cache_device to cpu if it is not"
    cure_of_losses = "lower train.lr or set train.amp_dtype to fp32"

    def __init__(self, config: DiffusionConfig, device: torch.device, save_every_minutes: float = 0):
        train = config.train
        if train.amp_dtype == "fp16" and device.type == "cpu":
            raise UserError("train.amp_dtype fp16 needs a GPU; on a CPU set it to bf16 or fp32")
        self.config = config
        self.epochs, self.accumulate_steps, self.log_interval = train.epochs, train.accumulate_steps, train.interval_log
        allow_tf32(device)
        vocoder = load_vocoder(config, device)
        self.learner = Learner(config, vocoder.n_mels, device)
        self._check_sampling()
        self.dataset = DiffusionDataset(
            config.data.training_files, config, n_mels=vocoder.n_mels, training=True, device=device
        )
        self.validation = Validation(config, vocoder, device)
        shared = train.to_dict(), config.model.to_dict(), config.spk
        distributed.demand_the_same("sections train, model and spk", shared)
        distributed.demand_the_same("clips to train on", [path.parts[-2:] for path in self.dataset.paths])
        batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            rank=distributed.rank(), world_size=distributed.world_size(), accumulated=train.accumulate_steps,
        )  # fmt: skip
        super().__init__(
            Path(config.env.expdir), device, batches, self._loader(batches, device), save_every_minutes
        )
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

    def _loader(self, batches: EpochBatches, device: torch.device) -> DataLoader:
        # On a CPU the step itself wants every core; what lies on a GPU already, no worker can hand over.
        to_be_moved = device.type != "cpu" and self.dataset.device.type == "cpu"
        workers = self.config.train.num_workers if to_be_moved else 0
        return DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=collate_diffusion, num_workers=workers,
            pin_memory=to_be_moved and device.type == "cuda", worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # without one, torch's own is drawn from
        )  # fmt: skip

    # -- beginning and continuing --------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Continue from the newest good checkpoint of the run's folder; that of step 0 is a base model to start from.

        Returns a sentence that says which it was.
        """
        # The first alone reads: on other machines there may be no such folder.
        found = distributed.from_the_first(lambda: read_newest_diffusion(self.folder))
        if found is None:
            return f"a new run in {self.folder}"
        saved, (content, state) = found
        learner = self.learner
        if saved.step == 0:
            checkpoint.load_base_weights(learner.model, content["model"], saved.model)
            return f"a new run in {self.folder} from the base model {saved.model.name}"
        checkpoint.load_weights(learner.model, content["model"], saved.model, config="diffusion configuration")
        holder, file = (state or {}, saved.state) if content.get("optimizer") is None else (content, saved.model)
        load_optimizer(learner.optimizer, holder.get("optimizer"), file if "optimizer" in holder else saved.model)
        load_scaler(learner.scaler, (state or {}).get("scaler"), saved.state)
        self.step = self.saved_step = saved.step
        if state and "epoch" in state:
            self.epoch, self.batch = (checkpoint.whole_number(state, name, saved.state) for name in ("epoch", "batch"))
        else:
            epochs, steps = divmod(self.step, self.batches.steps())
            self.epoch, self.batch = epochs + 1, steps * self.batches.per_step
        if distributed.is_first():
            self.passing = [there for there in diffusion_checkpoints(self.folder) if there.is_passing()]
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def save(self, *, passing: bool = False) -> None:
        """Write the checkpoint of this step and its extra state; a ``passing`` one is there until the next one is.

        Raises UserError, and what is there stays, when that fails.
        """
        saved = DiffusionCheckpoint(self.folder, self.step)
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

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_from(self, *batches: DiffusionBatch) -> tuple[tuple[Tensor, Tensor], Tensor]:
        loss, norm = self.learner.step(*batches, number=self.step + 1)
        return (loss, norm), norm

    def shown(self, result: tuple[Tensor, Tensor]) -> dict[str, str]:
        return {"loss": f"{result[0]:.4f}", "lr": f"{learning_rate(self.config.train, self.step):.3g}"}

    def not_finite(self, result: tuple[Tensor, Tensor]) -> str:
        return f"the loss is {result[0]:g}, its gradient's norm {result[1]:g}"

    def record(self, logbook: Logbook, result: tuple[Tensor, Tensor]) -> None:
        (loss, norm), steps = result, self.batches.steps()
        place = steps - self.batches.steps(min(self.batch, len(self.batches)))
        logbook.record(self.step, self.epoch, place, steps, learning_rate(self.config.train, self.step), float(loss))
        logbook.pace(self.step, self.pace.report(self.step), float(norm), self.bad_steps)

    def keep(self, logbook: Logbook, stop: StopSignal) -> None:
        """Save where it is time to, every ``interval_val`` steps to hear the validation clips too."""
        train = self.config.train
        if self.step % train.interval_val == 0:
            if self.try_to_save():
                delete_old_diffusion(self.folder, self.step, train.interval_val, train.interval_force_save)
            self.validation.run(self.learner.model, logbook, self.step, stop)
        elif self.autosave.due:
            self.try_to_save(passing=True)
