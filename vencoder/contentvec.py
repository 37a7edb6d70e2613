"""ContentVec: HuBERT base, trained on until its features tell what is said and hardly who says it.

K. Qian et al., "ContentVec: An Improved Self-Supervised Speech Representation by Disentangling Speakers", 2022.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from modules.console import UserError
from vencoder.encoder import SpeechEncoder
from vencoder.fairseq_hubert import FairseqHubert


class ContentVec(SpeechEncoder):
    """The features of one transformer layer of a ContentVec checkpoint (768 of them in the published file).

    Args:
        key, ssl_dim, layer: as in the table of encoders.
        path: the fairseq checkpoint.
        device: where the network runs.

    Raises UserError when the file is not a HuBERT of this feature size.
    """

    projected = False

    def __init__(self, key: str, ssl_dim: int, layer: int, path: str | Path, device: str | torch.device = "cpu"):
        super().__init__(key, ssl_dim, device)
        network = FairseqHubert(path, layer, self.projected)
        if network.width != ssl_dim:
            sizes = f"it gives {network.width} features a frame, not {ssl_dim}"
            raise UserError(f"{path} is not the file of the speech encoder '{key}': {sizes}; it is another HuBERT")
        self.network = network.to(self.device)

    def features(self, audio: Tensor) -> Tensor:
        return self.network(audio[None]).transpose(1, 2)


class ProjectedContentVec(ContentVec):
    """The same, with the checkpoint's final projection on top (to 256 features in the published file)."""

    projected = True
