"""HuBERT from checkpoints of fairseq, without fairseq, or of transformers: ContentVec, and Chinese HuBERT large.

ContentVec is HuBERT base, trained further so that its features hold content and little about the speaker: K. Qian et
al., "ContentVec: An Improved Self-Supervised Speech Representation by Disentangling Speakers", 2022. The waveform is
not normalised, even for encoders that were trained with normalisation: published models use such features.
"""

from __future__ import annotations

from pathlib import Path

from modules.weights.weight_file import read_weights_of
from vencoder.fairseq_names import TO_TRANSFORMERS, WITHIN_TRANSFORMERS
from vencoder.renaming import rename
from vencoder.wave_encoder import WaveEncoder
from vencoder.wave_transformer import Variant, WaveTransformer, build_network

NAMES = (
    *TO_TRANSFORMERS,
    (r"final_proj\.(weight|bias)", r"final_proj.\1"),
    (r"label_embs_concat", None),  # the training targets
)


class FairseqHubert(WaveEncoder):
    """The features of one transformer layer."""

    projected = False

    def read(self, path: str | Path, layer: int) -> WaveTransformer:
        family, weights = read_weights_of(path, "fairseq HuBERT", "transformers HuBERT")
        weights = rename(weights, NAMES if family == "fairseq HuBERT" else WITHIN_TRANSFORMERS, path)
        return build_network(weights, Variant(layer, self.projected), path, "HuBERT")


class ProjectedFairseqHubert(FairseqHubert):
    """The features after the checkpoint's final projection (256 for ContentVec)."""

    projected = True
