"""Losses of adversarial and variational training, all computed in float32.

Least-squares GAN: Mao et al., https://arxiv.org/abs/1611.04076; feature matching: MelGAN,
https://arxiv.org/abs/1910.06711; the KL term: VITS, https://arxiv.org/abs/2106.06103.
"""

from __future__ import annotations

import torch
from torch import Tensor


def discriminator_loss(real: list[Tensor], fake: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Push real scores towards 1 and fake ones towards 0.

    Takes each discriminator's scores. Returns the total loss, and each discriminator's for real and for fake, (n,).
    """
    real_losses = torch.stack([((1 - score.float()) ** 2).mean() for score in real])
    fake_losses = torch.stack([(score.float() ** 2).mean() for score in fake])
    return (real_losses + fake_losses).sum(), real_losses, fake_losses


def generator_loss(fake: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Push fake scores towards 1. Returns the total loss and each discriminator's loss, (n,)."""
    losses = torch.stack([((1 - score.float()) ** 2).mean() for score in fake])
    return losses.sum(), losses


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Return twice the mean distance of the feature maps; the real ones are targets and get no gradient."""
    return 2 * sum(
        (target.detach().float() - feature.float()).abs().mean()
        for targets, features in zip(real, fake, strict=True)
        for target, feature in zip(targets, features, strict=True)
    )


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor) -> Tensor:
    """Estimate the KL divergence of the posterior from the prior by one sample through the flow, in nats per frame.

    All tensors are (B, inter, T) except ``mask`` (B, 1, T).
    """
    z_p, logs_q, m_p, logs_p, mask = (x.float() for x in (z_p, logs_q, m_p, logs_p, mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p) ** 2 * torch.exp(-2 * logs_p)
    return (kl * mask).sum() / mask.sum()


def lf0_loss(predicted: Tensor, lf0: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of log F0, summed and divided by the batch size times the frames of the longest clip.

    All tensors are (B, 1, T). Beyond a clip's end ``mask`` is 0, and both contours must be 0.
    """
    frames = mask.sum(dim=2).max() * len(lf0)
    return (predicted.float() - lf0.float()).square().sum() / frames
