"""Content, pitch and loudness to a mel spectrogram, by diffusion: from noise, or as a refinement of a given one.

Denoising diffusion (Ho et al. 2020, https://arxiv.org/abs/2006.11239). Starting from a noisy version of a given
spectrogram is DiffSinger's shallow diffusion (https://arxiv.org/abs/2105.02446).
Shapes: units (B, T, C), F0 and volume (B, T, 1), mel (B, T, M), conditions (B, H, T).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.denoiser import Denoiser
from diffusion.samplers import SAMPLERS
from diffusion.schedule import NoiseSchedule
from modules.config import DiffusionConfig
from modules.console import UserError, option
from modules.cuda_graph import GraphedFunction
from modules.training.checkpoint import load_checkpoint, model_of
from modules.weights.weight_file import assign, recognise
from vdecoder.source import random_tensor

QUIETEST, LOUDEST = -12.0, 2.0  # natural logarithms of mel energy, which become -1 and 1

Watch = Callable[[int, int], None]


class Unit2Mel(nn.Module):
    """The published ``Unit2Mel``: the same parameters under the same names, in the same order.

    Args:
        input_channel: size C of a content vector.
        n_spk: number of speakers; a single one has no embedding.
        use_pitch_aug: whether the pitch shift of the training data is an input.
        out_dims: bands M of the mel spectrogram.
        n_layers, n_chans, n_hidden: sizes of the denoiser and of the condition.
        timesteps: steps of the whole diffusion.
        k_step_max: how many of them the model is trained to undo; all if not between 0 and ``timesteps``.
    """

    def __init__(
        self,
        input_channel: int,
        n_spk: int,
        use_pitch_aug: bool = False,
        out_dims: int = 128,
        n_layers: int = 20,
        n_chans: int = 512,
        n_hidden: int = 256,
        timesteps: int = 1000,
        k_step_max: int | None = 0,
    ):
        super().__init__()
        self.timesteps = timesteps
        self.k_step_max = k_step_max if k_step_max and 0 < k_step_max < timesteps else timesteps
        self.unit_embed = nn.Linear(input_channel, n_hidden)
        self.f0_embed = nn.Linear(1, n_hidden)
        self.volume_embed = nn.Linear(1, n_hidden)
        self.aug_shift_embed = nn.Linear(1, n_hidden, bias=False) if use_pitch_aug else None
        self.spk_embed = nn.Embedding(n_spk, n_hidden) if n_spk > 1 else None
        self.decoder = MelDiffusion(Denoiser(out_dims, n_layers, n_chans, n_hidden), timesteps)

    @property
    def is_shallow(self) -> bool:
        """Whether the model can only refine a given mel spectrogram."""
        return self.k_step_max < self.timesteps

    def loss(
        self,
        units: Tensor,
        f0: Tensor,
        volume: Tensor,
        mel: Tensor,
        speaker_id: Tensor | None = None,
        aug_shift: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the mean squared error of the predicted noise at a random step for each clip.

        Args:
            units, f0 (Hz), volume, mel: shapes as in the module's docstring.
            speaker_id: (B, 1).
            aug_shift: semitones by which the clip was shifted, (B, 1, 1).
            generator: source of the steps and the noise; None uses torch's own on the mel's device.
        """
        condition = self.condition(units, f0, volume, speaker_id, aug_shift)
        source = mel.device if generator is None else generator.device
        step = torch.randint(0, self.k_step_max, (len(mel),), generator=generator, device=source).to(mel.device)
        clean = self.decoder.normalize(mel)
        noise = random_tensor(torch.randn, clean.shape, clean.device, generator)
        return F.mse_loss(self.decoder.predict_noise(clean, step, condition, noise).float(), noise)

    @torch.inference_mode()
    def infer(
        self,
        units: Tensor,
        f0: Tensor,
        volume: Tensor,
        speaker: Tensor | None = None,
        mel: Tensor | None = None,
        k_step: int | None = None,
        method: str = "dpm-solver++",
        speedup: int = 10,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Generate a mel spectrogram (B, T, M) that sounds like the training data.

        Args:
            units, f0 (Hz), volume: shapes as in the module's docstring.
            speaker: ids (B, 1), or weights of the first S speakers for each frame, (T, S) or (B, T, S).
            mel: the mel spectrogram to refine, (B, T, M); None undoes the whole diffusion, from noise.
            k_step: how many steps of a given mel to undo; None undoes ``k_step_max``.
            method: a key of SAMPLERS.
            speedup: N takes one of every N steps; 1 means ``ddpm`` with any method, as published.
            generator: source of all noise; None uses torch's own on the units' device.
            watch: called with the network evaluations done and their total.

        Raises UserError as ``plan`` does.
        """
        depth, method = self.plan(mel is not None, k_step, method, speedup)
        condition = self.condition(units, f0, volume, speaker)
        return self.decoder.sample(condition, mel, depth, method, speedup, generator, watch)

    def condition(
        self,
        units: Tensor,
        f0: Tensor,
        volume: Tensor,
        speaker: Tensor | None = None,
        aug_shift: Tensor | None = None,
    ) -> Tensor:
        """Compute the denoiser's condition, (B, H, T)."""
        x = self.unit_embed(units) + self.f0_embed((1 + f0 / 700).log()) + self.volume_embed(volume)
        if self.spk_embed is not None and speaker is not None:
            x = x + self._speaker_condition(speaker)
        if self.aug_shift_embed is not None and aug_shift is not None:
            x = x + self.aug_shift_embed(aug_shift / 5)
        return x.transpose(1, 2)

    def _speaker_condition(self, speaker: Tensor) -> Tensor:
        """Map ids (B, 1) to (B, 1, H), or weights (..., T, S) of the first S speakers to their mix (..., T, H)."""
        if not speaker.is_floating_point():
            return self.spk_embed(speaker)
        table = self.spk_embed.weight
        if speaker.shape[-1] > len(table):
            raise UserError(f"the mix names {speaker.shape[-1]} speakers, the diffusion model has {len(table)}")
        return speaker.to(table.dtype) @ table[: speaker.shape[-1]]

    def plan(self, refines: bool, k_step: int | None, method: str, speedup: int) -> tuple[int, str]:
        """Return the number of steps that ``infer`` undoes, and its method; ``refines``: a mel is given.

        Raises UserError when the model was not trained for the depth, the method is unknown, or it gets too few
        steps.
        """
        depth = self._depth(refines, k_step)
        if speedup == 1 and method in SAMPLERS:
            method = "ddpm"
        check_sampling(method, depth, speedup)
        return depth, method

    def _depth(self, refines: bool, k_step: int | None) -> int:
        """Return the number of steps to undo. Raises UserError when the model was not trained for it."""
        if not refines:
            if self.is_shallow:
                raise UserError(
                    f"this diffusion model was trained with k_step_max {self.k_step_max} of {self.timesteps} steps: it "
                    "refines a synthesizer's output and cannot replace it; use "
                    f"{option('shallow_diffusion', True)} in place of {option('only_diffusion', True)}"
                )
            return self.timesteps
        depth = self.k_step_max if k_step is None else k_step
        if depth < 1:
            raise UserError(f"k_step is {depth}; it must be 1 or more")
        if depth > self.k_step_max:
            raise UserError(
                f"k_step {depth} is more than the diffusion model was trained to undo; use {self.k_step_max} "
                "(its k_step_max) or less"
            )
        return depth


class MelDiffusion(nn.Module):
    """Adds noise to mel spectrograms and removes it with the denoiser. Internally x is (B, M, T)."""

    def __init__(self, denoise_fn: Denoiser, timesteps: int):
        super().__init__()
        for name, table in NoiseSchedule.linear(timesteps).tables().items():
            self.register_buffer(name, torch.from_numpy(table).float())
        self.register_buffer("spec_min", torch.full((1, 1, 1), QUIETEST))
        self.register_buffer("spec_max", torch.full((1, 1, 1), LOUDEST))
        self.denoise_fn = denoise_fn

    @property
    def schedule(self) -> NoiseSchedule:
        """The checkpoint's schedule, as host numbers."""
        return NoiseSchedule(self.betas.cpu().double().numpy())

    def normalize(self, mel: Tensor) -> Tensor:
        """Map (B, T, M) to (B, M, T) with values from about -1 to 1."""
        return ((mel - self.spec_min) / (self.spec_max - self.spec_min) * 2 - 1).transpose(1, 2)

    def denormalize(self, x: Tensor) -> Tensor:
        """Invert ``normalize``: (B, M, T) to (B, T, M)."""
        return (x.transpose(1, 2) + 1) / 2 * (self.spec_max - self.spec_min) + self.spec_min

    def diffuse(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Add ``noise`` to ``clean`` (B, M, T) for a step (B,)."""
        share, share_of_noise = self.sqrt_alphas_cumprod[step], self.sqrt_one_minus_alphas_cumprod[step]
        return share[:, None, None] * clean + share_of_noise[:, None, None] * noise

    def predict_noise(self, clean: Tensor, step: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """Predict ``noise`` from ``clean`` with that noise added (both (B, M, T)) at a step (B,)."""
        return self.denoise_fn(self.diffuse(clean, step, noise), step, condition)

    def sample(
        self,
        condition: Tensor,
        mel: Tensor | None,
        depth: int,
        method: str,
        speedup: int,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Undo ``depth`` steps for a condition (B, H, T), starting from a noisy ``mel`` or from noise: (B, T, M)."""
        batch, device = len(condition), condition.device
        shape = (batch, self.denoise_fn.n_mels, condition.shape[2])

        def noise() -> Tensor:
            return random_tensor(torch.randn, shape, device, generator)

        x = noise()
        if mel is not None:
            x = self.diffuse(self.normalize(mel), torch.full((batch,), depth - 1, device=device), x)
        sampler = SAMPLERS[method]
        projections = self.denoise_fn.project(condition)
        total, done = sampler.evaluations(depth, speedup), 0
        # The first evaluation is a warm-up and the second a capture, so a few are faster without.
        denoise = GraphedFunction(
            lambda inputs: self.denoise_fn.denoise(*inputs, projections), device, enabled=total > 4, optional=True
        )

        def predict(x: Tensor, label: float) -> Tensor:
            nonlocal done
            step = torch.full((batch,), label, dtype=torch.float32, device=device)
            estimate = denoise((x, step))
            if denoise.enabled:
                estimate = estimate.clone()  # the next replay overwrites it, and samplers keep a few
            done += 1
            if watch is not None:
                watch(done, total)
            return estimate

        return self.denormalize(sampler.run(predict, x, self.schedule.head(depth), speedup, noise))


def check_sampling(method: str, depth: int, speedup: int) -> None:
    """Raise UserError when the method is unknown or gets too few steps."""
    if method not in SAMPLERS:
        raise UserError(f"'{method}' is no sampling method; use {', '.join(SAMPLERS)}")
    if speedup < 1:
        raise UserError(f"the speedup is {speedup}; it must be 1 or more")
    sampler = SAMPLERS[method]
    evaluations = sampler.evaluations(depth, speedup)
    if evaluations < sampler.min_evaluations:
        raise UserError(
            f"k_step {depth} with a speedup of {speedup} leaves {method} {evaluations} of the "
            f"{sampler.min_evaluations} or more evaluations that it needs; raise {option('k_step')} or lower "
            f"{option('diffusion_speedup')}"
        )


# -- from a configuration ---------------------------------------------------------------------------------------------


def build_unit2mel(config: DiffusionConfig, n_mels: int) -> Unit2Mel:
    """Build a network of a configuration's sizes with random weights, for a vocoder of ``n_mels`` bands."""
    model = config.model
    return Unit2Mel(
        config.data.encoder_out_channels,
        model.n_spk,
        model.use_pitch_aug,
        n_mels,
        model.n_layers,
        model.n_chans,
        model.n_hidden,
        model.timesteps,
        model.k_step_max,
    )


def load_unit2mel(
    path: str | Path, config: DiffusionConfig, n_mels: int | None, device: str | torch.device
) -> Unit2Mel:
    """Load the network of a checkpoint ``model_<step>.pt``, for inference; ``n_mels`` None uses the file's.

    Raises UserError when the file is unreadable, of another kind, or of other sizes than the configuration's.
    """
    content = load_checkpoint(path)
    weights = model_of(content, path) if isinstance(content.get("model"), dict) else {}
    if "unit_embed.weight" not in weights:
        kind = recognise(weights)
        looks = f"it looks like {kind} weights" if kind else "it has none of its tensors"
        raise UserError(f"{path} is no diffusion model: {looks}; a model_<step>.pt of train_diff.py is needed")
    if n_mels is None:
        n_mels = len(weights.get("decoder.denoise_fn.output_projection.bias", ()))
    with torch.device("meta"):
        network = build_unit2mel(config, n_mels)
    assign(network, weights, path, "diffusion model as its YAML describes it")
    return network.to(device).eval().requires_grad_(False)
