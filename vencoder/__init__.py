"""Speech encoders: the table of keys that ``config.json`` and ``--speech_encoder`` can name.

To add one, write vencoder/<family>.py with its class, a row in ENCODERS below, a line in pretrain/README.md, and its
family in FAMILIES of modules/weights/weight_file.py. For tests, write a small weight file in tests/encoder_files.py
(tests/test_encoders.py then covers it), the key in tests/test_vencoder.py, and tests/test_<family>.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modules.config import ENCODER_OF_4_0, FEATURES_OF_4_0, ModelConfig
from modules.console import UserError
from modules.registry import Registry, Row
from modules.shared import shared

if TYPE_CHECKING:
    import torch

    from vencoder.encoder import SpeechEncoder


@dataclass(frozen=True)
class EncoderRow(Row):
    """One encoder. All take 16 kHz sound and give a frame every 320 samples.

    Attributes:
        target: its class.
        ssl_dim: features per frame, also ``encoder_out_channels`` of diffusion.yaml.
        gin_channels, filter_channels: values for config.json; None leaves the template's value.
        weight: the file under pretrain/, or None if it needs none.
        layer: the transformer layer whose output is used; None for the network's output.
        what: description of the file and its publisher.
        others: other file names of the same weights; the first that exists is read.
    """

    ssl_dim: int
    gin_channels: int | None
    filter_channels: int | None
    weight: str | None
    layer: int | None
    what: str
    others: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        """Return the values that ``preprocess_flist_config.py`` writes to the model section of config.json."""
        sizes = {
            "ssl_dim": self.ssl_dim,
            "gin_channels": self.gin_channels,
            "filter_channels": self.filter_channels,
        }
        return {key: value for key, value in sizes.items() if value is not None}


ONNX_SUFFIX = "-onnx"  # suffix of the keys of ONNX graphs, after the key of their encoder

_HUBERT, _PROJECTED = "vencoder.fairseq_hubert:FairseqHubert", "vencoder.fairseq_hubert:ProjectedFairseqHubert"
_ONNX, _ONNX_SOFT = "vencoder.onnx_encoder:OnnxEncoder", "vencoder.onnx_encoder:OnnxHubertSoft"
_WHISPER = "vencoder.whisper:Whisper"
_SMALL_WHISPER, _ENGLISH_WHISPER = "vencoder.whisper:SmallWhisper", "vencoder.whisper:EnglishWhisper"
_CONTENTVEC = "ContentVec, the legacy checkpoint with 500 classes (github.com/auspicious3000/contentvec)"
_CONTENTVEC_FILE = "checkpoint_best_legacy_500.pt"
_CONTENTVEC_OTHERS = (
    "contentvec/model.safetensors", "contentvec/pytorch_model.bin", "content-vec-best/model.safetensors",
    "content-vec-best/pytorch_model.bin", "hubert_base.pt",
)  # fmt: skip
_EXPORTED = "exported to ONNX, one file for each layer and size (huggingface.co/NaruseMioShirakana/MoeSS-SUBModel)"

# The ONNX keys have the sizes of their features; the original leaves 768 in config.json for all of them.
ENCODERS = Registry(
    "speech encoder",
    {  # key: class, ssl_dim, gin_channels, filter_channels, weight file, layer, description
        "vec768l12": EncoderRow(_HUBERT, 768, 768, 768, _CONTENTVEC_FILE, 12, _CONTENTVEC, _CONTENTVEC_OTHERS),
        "vec256l9": EncoderRow(
            _PROJECTED, 256, 256, None, _CONTENTVEC_FILE, 9, _CONTENTVEC, _CONTENTVEC_OTHERS),
        "hubertsoft": EncoderRow(
            "vencoder.hubertsoft:HubertSoft", 256, 256, None, "hubert-soft-0d54a1f4.pt", 12,
            "HuBERT-Soft (github.com/bshall/hubert)"),
        "whisper-ppg": EncoderRow(
            _WHISPER, 1024, 1024, 1024, "medium.pt", None, "Whisper medium (github.com/openai/whisper)"),
        "whisper-ppg-large": EncoderRow(
            _WHISPER, 1280, 1280, 1280, "large-v2.pt", None, "Whisper large-v2 (github.com/openai/whisper)"),
        "whisper-ppg-tiny": EncoderRow(
            _SMALL_WHISPER, 384, None, None, "tiny.pt", 3, "Whisper tiny (github.com/openai/whisper)"),
        "whisper-ppg-tiny.en": EncoderRow(
            _ENGLISH_WHISPER, 384, None, None, "tiny.en.pt", 3, "Whisper tiny.en (github.com/openai/whisper)"),
        "whisper-ppg-base": EncoderRow(
            _SMALL_WHISPER, 512, None, None, "base.pt", 3, "Whisper base (github.com/openai/whisper)"),
        "whisper-ppg-base.en": EncoderRow(
            _ENGLISH_WHISPER, 512, None, None, "base.en.pt", 3, "Whisper base.en (github.com/openai/whisper)"),
        "whisper-ppg-small": EncoderRow(
            _SMALL_WHISPER, 768, None, None, "small.pt", 6, "Whisper small (github.com/openai/whisper)"),
        "whisper-ppg-small.en": EncoderRow(
            _ENGLISH_WHISPER, 768, None, None, "small.en.pt", 6, "Whisper small.en (github.com/openai/whisper)"),
        "cnhubertlarge": EncoderRow(
            _HUBERT, 1024, 1024, 1024, "chinese-hubert-large-fairseq-ckpt.pt", 24,
            "Chinese HuBERT large (github.com/TencentGameMate/chinese_speech_pretrain)",
            ("chinese-hubert-large/model.safetensors", "chinese-hubert-large/pytorch_model.bin")),
        "dphubert": EncoderRow(
            "vencoder.dphubert:DPHubert", 768, 768, 768, "DPHuBERT-sp0.75.pth", None,
            "DPHuBERT, a pruned HuBERT (github.com/pyf98/DPHuBERT)"),
        "wavlmbase+": EncoderRow(
            "vencoder.wavlm:WavLM", 768, 768, 768, "WavLM-Base+.pt", 12, "WavLM Base+ (github.com/microsoft/unilm)",
            ("wavlm-base-plus/model.safetensors", "wavlm-base-plus/pytorch_model.bin")),
        "vec256l9-onnx": EncoderRow(_ONNX, 256, 256, None, "vec-256-layer-9.onnx", 9, f"ContentVec {_EXPORTED}"),
        "vec256l12-onnx": EncoderRow(_ONNX, 256, 256, None, "vec-256-layer-12.onnx", 12, f"ContentVec {_EXPORTED}"),
        "vec768l9-onnx": EncoderRow(_ONNX, 768, 768, None, "vec-768-layer-9.onnx", 9, f"ContentVec {_EXPORTED}"),
        "vec768l12-onnx": EncoderRow(_ONNX, 768, 768, None, "vec-768-layer-12.onnx", 12, f"ContentVec {_EXPORTED}"),
        "hubertsoft-onnx": EncoderRow(_ONNX_SOFT, 256, 256, None, "hubert-soft.onnx", 12, f"HuBERT-Soft {_EXPORTED}"),
        "mfcc": EncoderRow(
            "vencoder.mfcc:Mfcc", 72, None, None, None, None, "mel cepstra, for demonstrations; it needs no file"),
    },
)


def encoder_key(key: str, size: int, path: str | Path) -> str:
    """Return the key of the speech encoder that a model was trained on. A 4.0 config has only the feature size.

    Raises UserError if the encoder's features have another size than the model's; ``path`` names the config.
    """
    if ENCODERS[key].ssl_dim == size:
        return key
    if key == ModelConfig.speech_encoder and size == FEATURES_OF_4_0:
        return ENCODER_OF_4_0
    raise UserError(
        f"{path}: the speech encoder {key} gives {ENCODERS[key].ssl_dim} features, but the model takes {size}; "
        "name the encoder that it was trained on"
    )


def build_encoder(
    key: str, device: str | torch.device = "cpu", folder: str | Path = "pretrain", half: bool = False
) -> SpeechEncoder:
    """Build the encoder ``key`` on ``device`` with its weight file from ``folder``; with ``half`` it computes in half
    precision if that gives finite features. Encoders of the same file, device and precision are one object.

    Raises UserError for an unknown key, and for a weight file that is missing, truncated, unsafe, of another family or
    of another size.
    """
    return _encoder(key, find_encoder_file(key, folder), torch_device(device), half)


@shared
def _encoder(key: str, path: Path | None, device: torch.device, half: bool) -> SpeechEncoder:
    row = ENCODERS[key]
    return row.load()(key=key, ssl_dim=row.ssl_dim, layer=row.layer, path=path, device=device, half=half)


def torch_device(device: str | torch.device) -> torch.device:
    """Return the device of a name; imports PyTorch, which the table alone does not need."""
    import torch

    return torch.device(device)


def find_encoder_file(key: str, folder: str | Path = "pretrain") -> Path | None:
    """Return the path of an encoder's weight file, None if it needs none.

    Raises UserError for an unknown key, and if the file is missing.
    """
    row = ENCODERS[key]
    if row.weight is None:
        return None
    from modules.weights.weight_file import find_weight_file

    command = f"python download_pretrain.py --encoder {key}"
    return find_weight_file(row.weight, folder, f"the speech encoder '{key}'", row.what, command, row.others)


def graph_file(key: str, folder: str | Path = "pretrain") -> Path | None:
    """Return the path of the encoder's ONNX graph: the file of its ``-onnx`` key, else its weight file with .onnx.

    Returns None if the encoder needs no file. Raises UserError for an unknown key.
    """
    row = ENCODERS[key]
    if row.weight is None:
        return None
    twin = key + ONNX_SUFFIX
    name = ENCODERS[twin].weight if twin in ENCODERS else row.weight
    return (Path(folder) / name).with_suffix(".onnx")


def build_graph_encoder(key: str, path: str | Path, device: str | torch.device = "cpu") -> SpeechEncoder:
    """Build the encoder ``key`` from the ONNX graph in ``path``. Raises UserError as ``OnnxEncoder``."""
    from vencoder.onnx_encoder import OnnxEncoder

    row = ENCODERS[key]
    return OnnxEncoder(key, row.ssl_dim, row.layer, path, device, padding=row.load().padding)
