"""A training run of the diffusion model: set-up or resume, validation, checkpoints.

All random numbers are functions of the seed and of the step, epoch or clip that they are for. So the step counter and
the optimizer's state are enough to resume exactly.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffusion.dataset import DiffusionBatch, DiffusionDataset, collate_diffusion
from diffusion.saved_models import (
    DiffusionCheckpoint,
    delete_old_diffusion,
    diffusion_checkpoints,
    read_newest_diffusion,
)
from diffusion.step import Learner, learning_rate
from diffusion.training_log import TrainingLog
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
from modules.training.run_lock import exclusive_run
from vencoder import ENCODERS

log = get_logger("train_diff")


def train(config_path: str | Path, device: str | None = None, save_every_minutes: float = MINUTES) -> int:
    """Train until the config's last epoch or a signal; returns the exit code, 128 + the number of a signal.

    ``device`` overrides the configuration's. Raises UserError when anything that a run needs is missing or wrong.
    """
    config = load_diffusion_config(config_path)
    ENCODERS[config.data.encoder]  # raises UserError for an unknown encoder: the model could never be used
    processes = distributed.process_group(choose_device(config, device))
    with processes as own_device, exclusive_run(Path(config.env.expdir)):
        distributed.broadcast_from_rank_zero(lambda: check_run_config(config))
        run = Run(config, own_device, save_every_minutes)
        if distributed.is_rank_zero():
            save_diffusion_config(config, run.folder / "config.yaml")
        training_log = TrainingLog(run.folder, run.step) if distributed.is_rank_zero() else distributed.NoOp()
        with contextlib.closing(training_log), stop_signal() as stop:
            training_log.log_start(sum(parameter.numel() for parameter in run.learner.model.parameters()))
            return run.loop(training_log, stop)


# The keys that must not change when a run resumes; the model's other keys are checked by the checkpoint's shapes.
FIXED_KEYS = (
    "data.encoder", "data.sampling_rate", "data.block_size", "data.unit_interpolate_mode", "model.timesteps",
    "vocoder.type",
)  # fmt: skip


def check_run_config(config: DiffusionConfig) -> None:
    """Raise UserError when ``env.expdir`` holds a run whose model differs from the configuration's."""
    folder = Path(config.env.expdir)
    path = folder / "config.yaml"
    if path.exists() and any(saved.step for saved in diffusion_checkpoints(folder)):
        refuse_another_model(config, load_diffusion_config(path), path, FIXED_KEYS)


def choose_device(config: DiffusionConfig, name: str | None) -> torch.device:
    """Return the device ``name``, or the configuration's; if the latter is missing, log it and take the best."""
    if name:
        return pick_device(name)
    single = distributed.launch_world_size() == 1  # with several processes each takes its own GPU
    wanted = f"cuda:{config.env.gpu_id}" if config.device == "cuda" and single else config.device
    try:
        return pick_device(wanted)
    except UserError:
        best = pick_device()
        log.info("this machine has no %s (the configuration's device): using %s", wanted, best)
        return best


class Run(TrainingRun):
    """A run in the configuration's ``env.expdir``."""

    memory_advice = "halve it, or set train.cache_device to cpu if it is not"
    losses_advice = "lower train.lr or set train.amp_dtype to fp32"

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
        distributed.require_same("sections train, model and spk", shared)
        distributed.require_same("clips to train on", [path.parts[-2:] for path in self.dataset.paths])
        batches = EpochBatches(
            len(self.dataset), train.batch_size, train.seed,
            rank=distributed.rank(), world_size=distributed.world_size(), accumulated=train.accumulate_steps,
        )  # fmt: skip
        super().__init__(
            Path(config.env.expdir), device, batches, self._loader(batches, device), save_every_minutes
        )
        self.start_message = self.resume()
        distributed.broadcast_weights(self.learner.model)

    def _check_sampling(self) -> None:
        """Raise UserError when the configuration's sampling is impossible, before training and not while validating."""
        model, infer = self.learner.model, self.config.infer
        try:
            model.plan(model.is_shallow, None, infer.method, infer.speedup)
        except UserError:
            raise UserError(
                f"infer.speedup {infer.speedup} leaves infer.method {infer.method} too few of the model's "
                f"{model.k_step_max} steps (model.k_step_max, model.timesteps) to validate with; lower infer.speedup"
            ) from None

    def _loader(self, batches: EpochBatches, device: torch.device) -> DataLoader:
        # On a CPU the step itself uses every core; workers cannot pass on tensors that are on a GPU already.
        must_move = device.type != "cpu" and self.dataset.device.type == "cpu"
        workers = self.config.train.num_workers if must_move else 0
        return DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=collate_diffusion, num_workers=workers,
            pin_memory=must_move and device.type == "cuda", worker_init_fn=ignore_stop_signals,
            generator=torch.Generator(),  # otherwise the loader would sample from torch's global generator
        )  # fmt: skip

    # -- starting and resuming -----------------------------------------------------------------------------------------

    def resume(self) -> str:
        """Resume from the newest readable checkpoint of the run's folder, or start from a base model, step 0.

        Returns a message that names the source of the weights.
        """
        # Only rank 0 reads: other machines may not have the folder.
        found = distributed.broadcast_from_rank_zero(lambda: read_newest_diffusion(self.folder))
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
        if distributed.is_rank_zero():
            self.autosaves = [found for found in diffusion_checkpoints(self.folder) if found.is_autosave()]
        return f"resuming {self.folder} at step {self.step}, epoch {self.epoch}"

    def save(self, *, autosave: bool = False) -> None:
        """Write the checkpoint of this step and its extra state. An autosave is deleted when the next one is written.

        Raises UserError when it cannot be written; the former checkpoints stay.
        """
        saved = DiffusionCheckpoint(self.folder, self.step)
        learner = self.learner
        content = {"global_step": self.step, "model": learner.model.state_dict()}
        state = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "passing": autosave,  # the state file's key for an autosave
            "scaler": learner.scaler.state_dict(),
        }
        (content if self.config.train.save_opt else state)["optimizer"] = learner.optimizer.state_dict()
        saved.write(content, state)
        self.saved_step = self.step
        log.info("saved %s", saved.model)
        for former in self.autosaves:
            former.delete()
        self.autosaves = [saved] if autosave else []

    # -- training ------------------------------------------------------------------------------------------------------

    def learn_from(self, *batches: DiffusionBatch) -> tuple[tuple[Tensor, Tensor], Tensor]:
        loss, norm = self.learner.step(*batches, number=self.step + 1)
        return (loss, norm), norm

    def progress_fields(self, result: tuple[Tensor, Tensor]) -> dict[str, str]:
        return {"loss": f"{result[0]:.4f}", "lr": f"{learning_rate(self.config.train, self.step):.3g}"}

    def describe_not_finite(self, result: tuple[Tensor, Tensor]) -> str:
        return f"the loss is {result[0]:g}, its gradient's norm {result[1]:g}"

    def log_step(self, training_log: TrainingLog, result: tuple[Tensor, Tensor]) -> None:
        (loss, norm), steps = result, self.batches.steps()
        step_of_epoch = steps - self.batches.steps(min(self.batch, len(self.batches)))
        rate = learning_rate(self.config.train, self.step)
        training_log.log_step(self.step, self.epoch, step_of_epoch, steps, rate, float(loss))
        training_log.log_throughput(self.step, self.throughput.report(self.step), float(norm), self.skipped_steps)

    def validate_and_save(self, training_log: TrainingLog, stop: StopSignal) -> None:
        """Save and validate every ``interval_val`` steps, and autosave when it is due."""
        train = self.config.train
        if self.step % train.interval_val == 0:
            if self.try_to_save():
                delete_old_diffusion(self.folder, self.step, train.interval_val, train.interval_force_save)
            self.validation.run(self.learner.model, training_log, self.step, stop)
        elif self.autosave_timer.due:
            self.try_to_save(autosave=True)
