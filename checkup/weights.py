"""The weight files in pretrain/: those that the configuration needs, and others that are not what their name says."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from checkup.finding import ERROR, Finding, error, ok, warning
from checkup.project import PRETRAIN, Project
from modules.console import UserError
from modules.f0 import F0_PREDICTORS
from vencoder import ENCODERS, ONNX_SUFFIX

VOCODER = PRETRAIN / "nsf_hifigan" / "model"
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".onnx")


def check_weights(project: Project) -> Iterator[Finding]:
    """Yield the state of the weight files. Needs PyTorch."""
    for finding in _needed(project):
        project.broken_weights |= finding.level == ERROR
        yield finding
    yield from _others()


def _needed(project: Project) -> Iterator[Finding]:
    if project.model_config is None:
        yield ok(f"the speech encoder is not known yet; step 2 writes it to {project.config_path}")
    else:
        yield from _check_encoder(project)
    for key, row in F0_PREDICTORS.rows.items():
        if row.weight and (PRETRAIN / row.weight).is_file():
            path, command = PRETRAIN / row.weight, f"python download_pretrain.py --f0 {key}"
            yield _check_file(path, f"F0 predictor {key}", command, lambda key=key: _load_predictor(key))
    if not any(row.weight and (PRETRAIN / row.weight).is_file() for row in F0_PREDICTORS.rows.values()):
        yield ok("F0 predictor fcpe, which needs no file; rmvpe.pt is not there")
    if VOCODER.is_file():
        yield _check_file(VOCODER, "vocoder", "python download_pretrain.py --vocoder", _load_vocoder)
    elif any(Path("logs/44k/diffusion").glob("model_*.pt")):
        yield error(f"{VOCODER} is missing, which the diffusion needs", "python download_pretrain.py --vocoder")


def _check_encoder(project: Project) -> Iterator[Finding]:
    from vencoder import build_encoder, find_encoder_file

    key = project.model_config.model.speech_encoder
    if key not in ENCODERS:
        return  # the section about the configuration says it
    command = f"python download_pretrain.py --encoder {key}"
    if key.endswith(ONNX_SUFFIX) and importlib.util.find_spec("onnxruntime") is None:
        yield error(f"the speech encoder {key} needs ONNX Runtime", "pip install -r requirements-onnx.txt")
        return
    try:
        path = find_encoder_file(key)
    except UserError:
        yield error(f"the speech encoder {key} needs {PRETRAIN / ENCODERS[key].weight}, which is missing", command)
        return
    if path is None:
        yield ok(f"speech encoder {key}, which needs no file")
    else:
        yield _check_file(path, f"speech encoder {key}", command, lambda: build_encoder(key))


def _load_predictor(key: str) -> None:
    from modules.f0 import build_f0_predictor

    build_f0_predictor(key)


def _load_vocoder() -> None:
    from vdecoder.mel_vocoder import load_mel_vocoder

    load_mel_vocoder(VOCODER)


def _check_file(path: Path, user: str, command: str, load: Callable[[], object]) -> Finding:
    """Load a file as its user does, then compare its hash with that of its download and with its publisher's."""
    from downloads.fetching import Fetcher

    cure = f"delete {path}, then: {command}"
    try:
        load()
        Fetcher(Path()).check([path])
    except UserError as failure:
        return error(str(failure), cure)
    if expected := _published_hash(path):
        from downloads.fetching import hash_of

        if hash_of(path) not in expected:
            return warning(f"{user}: {path} can be read, but is not the publisher's file (by its SHA-256)", cure)
        return ok(f"{user}: {path}, the publisher's file (by its SHA-256)")
    return ok(f"{user}: {path}")


def _published_hash(path: Path) -> set[str]:
    """Return the hashes that the sources of a file give for it; empty if one gives none, or gives another layout."""
    from downloads.catalog import FILES

    sources = [
        source for file in FILES.values() for source in file.sources if source.targets == (path.as_posix(),)
    ]  # fmt: skip
    if not all(source.sha256 and not source.members and not source.is_ctranslate2 for source in sources):
        return set()
    return {source.sha256 for source in sources}


def _others() -> Iterator[Finding]:
    """Yield the files in pretrain/ whose first bytes show that they hold no weights."""
    from modules.weights.weight_file import CHECKPOINT, GRAPH, SAFETENSORS, refuse_other_formats

    needed = {PRETRAIN / row.weight for row in F0_PREDICTORS.rows.values() if row.weight}
    for path in sorted(PRETRAIN.rglob("*")) if PRETRAIN.is_dir() else ():
        if path.suffix not in SUFFIXES or path in needed or not path.is_file():
            continue
        try:
            if path.stat().st_size == 0:
                raise UserError(f"{path} is empty")
            refuse_other_formats(path, CHECKPOINT, SAFETENSORS, GRAPH)
        except (UserError, OSError) as failure:
            yield warning(str(failure), f"delete {path}, and fetch it again if you need it")
