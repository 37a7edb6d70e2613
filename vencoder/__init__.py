"""Speech encoders: the table of keys that ``config.json`` and ``--speech_encoder`` can name.

Adding one is a class in a file of its family, a row here, a line in pretrain/README.md and a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modules.console import UserError
from modules.registry import Registry, Row

if TYPE_CHECKING:
    import torch

    from vencoder.encoder import SpeechEncoder


@dataclass(frozen=True)
class EncoderRow(Row):
    """One encoder. All take 16 kHz sound and give a frame every 320 samples.

    Attributes:
        target: its class; empty for a published key that this version does not have yet.
        ssl_dim: features a frame, also ``encoder_out_channels`` of diffusion.yaml.
        gin_channels, filter_channels: what config.json gets with this encoder; None leaves the template's value.
        weight: the file under pretrain/, None where none is needed.
        layer: whose transformer layer's output the features are; None for the network's own output.
        what: the file in words, and who publishes it.
    """

    ssl_dim: int
    gin_channels: int | None
    filter_channels: int | None
    weight: str | None
    layer: int | None
    what: str

    def sizes(self) -> dict[str, int]:
        """What ``preprocess_flist_config.py`` writes into the model section of config.json."""
        sizes = {
            "ssl_dim": self.ssl_dim,
            "gin_channels": self.gin_channels,
            "filter_channels": self.filter_channels,
        }
        return {key: value for key, value in sizes.items() if value is not None}


_CONTENTVEC = "ContentVec, the legacy checkpoint with 500 classes (github.com/auspicious3000/contentvec)"
_CONTENTVEC_FILE = "checkpoint_best_legacy_500.pt"
_ONNX = "exported to ONNX, one file for each layer and size (huggingface.co/NaruseMioShirakana/MoeSS-SUBModel)"

# Sizes of the ONNX keys are those of their features; the original leaves 768 in config.json for all of them.
ENCODERS = Registry(
    "speech encoder",
    {  # key: class, ssl_dim, gin_channels, filter_channels, weight file, layer, what it is
        "vec768l12": EncoderRow(
            "vencoder.contentvec:ContentVec", 768, 768, 768, _CONTENTVEC_FILE, 12, _CONTENTVEC),
        "vec256l9": EncoderRow(
            "vencoder.contentvec:ProjectedContentVec", 256, 256, None, _CONTENTVEC_FILE, 9, _CONTENTVEC),
        "hubertsoft": EncoderRow(
            "", 256, 256, None, "hubert-soft-0d54a1f4.pt", 12, "HuBERT-Soft (github.com/bshall/hubert)"),
        "whisper-ppg": EncoderRow(
            "", 1024, 1024, 1024, "medium.pt", None, "Whisper medium (github.com/openai/whisper)"),
        "whisper-ppg-large": EncoderRow(
            "", 1280, 1280, 1280, "large-v2.pt", None, "Whisper large-v2 (github.com/openai/whisper)"),
        "cnhubertlarge": EncoderRow(
            "", 1024, 1024, 1024, "chinese-hubert-large-fairseq-ckpt.pt", 24,
            "Chinese HuBERT large (github.com/TencentGameMate/chinese_speech_pretrain)"),
        "dphubert": EncoderRow(
            "", 768, 768, 768, "DPHuBERT-sp0.75.pth", None, "DPHuBERT, a pruned HuBERT (github.com/pyf98/DPHuBERT)"),
        "wavlmbase+": EncoderRow(
            "", 768, 768, 768, "WavLM-Base+.pt", 12, "WavLM Base+ (github.com/microsoft/unilm)"),
        "vec256l9-onnx": EncoderRow("", 256, 256, None, "vec-256-layer-9.onnx", 9, f"ContentVec {_ONNX}"),
        "vec256l12-onnx": EncoderRow("", 256, 256, None, "vec-256-layer-12.onnx", 12, f"ContentVec {_ONNX}"),
        "vec768l9-onnx": EncoderRow("", 768, 768, None, "vec-768-layer-9.onnx", 9, f"ContentVec {_ONNX}"),
        "vec768l12-onnx": EncoderRow("", 768, 768, None, "vec-768-layer-12.onnx", 12, f"ContentVec {_ONNX}"),
        "hubertsoft-onnx": EncoderRow("", 256, 256, None, "hubert-soft.onnx", 12, f"HuBERT-Soft {_ONNX}"),
        "mfcc": EncoderRow(
            "vencoder.mfcc:Mfcc", 72, None, None, None, None, "mel cepstra, for demonstrations; it needs no file"),
    },
)


def build_encoder(key: str, device: str | torch.device = "cpu", folder: str | Path = "pretrain") -> SpeechEncoder:
    """The encoder called ``key``, its weights read from ``folder`` onto ``device``.

    Raises UserError for an unknown key, for one that this version does not have, and for a weight file that is missing,
    truncated, refused, of another family or of another size.
    """
    row = ENCODERS[key]
    if not row.target:
        built = ", ".join(name for name in ENCODERS if ENCODERS[name].target)
        raise UserError(f"the speech encoder '{key}' is not available in this version; available: {built}")
    path = None
    if row.weight:
        from modules.weight_file import find_weight_file

        path = find_weight_file(row.weight, folder, f"the speech encoder '{key}'", row.what)
    return row.load()(key=key, ssl_dim=row.ssl_dim, layer=row.layer, path=path, device=device)
