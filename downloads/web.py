"""Download one file from a web server: resumed after a break, limited in size, and never a web page."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modules.console import get_logger, progress

if TYPE_CHECKING:
    import requests

ATTEMPTS = 4
TIMEOUT = (15, 60)  # seconds: to connect, and without a byte
LARGEST = 16 << 30  # bytes; of a file whose size is unknown
BLOCK = 1 << 16  # bytes; a connection that breaks loses less than this
REDIRECTS = 10
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # status codes of a server that may answer later

log = get_logger("download")


class DownloadError(Exception):
    """A source does not deliver the file. The message says why; another source may have it."""


def download(url: str, folder: Path, size: int = 0, pause: Callable[[float], None] = time.sleep) -> Path:
    """Download ``url`` into ``folder`` and return the path of the file, whose name is made of the address.

    A file of an earlier run is continued if the server still has the same, by its ETag or date. ``size`` is the
    expected one, 0 if it is unknown. The caller checks the content and deletes the file with ``discard``. Raises
    DownloadError if the server refuses, cannot be reached or breaks off ATTEMPTS times in a row, or sends a web page or
    another number of bytes than expected.
    """
    import requests

    folder.mkdir(parents=True, exist_ok=True)
    part, fails = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.part", 0
    with requests.Session() as session:
        session.max_redirects = REDIRECTS
        while True:
            before = _bytes_in(part)
            try:
                return _attempt(session, url, part, size)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = _in_words(error)
            except requests.RequestException as error:
                raise DownloadError(_in_words(error)) from None
            except DownloadError:
                discard(part)
                raise
            except _TryAgain as error:
                reason = str(error)
            fails = 1 if _bytes_in(part) > before else fails + 1
            if fails >= ATTEMPTS:
                raise DownloadError(f"{reason}; tried {ATTEMPTS} times")
            log.info("%s; trying again", reason)
            pause(2.0 ** (fails - 1))


class _TryAgain(Exception):
    """The server may answer later."""


def _attempt(session: requests.Session, url: str, part: Path, size: int) -> Path:
    """Download what is missing of the file in one request."""
    tag_file, done = part.with_suffix(".tag"), _bytes_in(part)
    headers = {"Accept-Encoding": "identity"}
    if done and tag_file.is_file() and (tag := tag_file.read_text(encoding="latin-1")):
        headers |= {"Range": f"bytes={done}-", "If-Range": tag}
    with session.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
        if "Range" in headers and response.status_code == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                raise DownloadError("the server sends another part of the file than was asked for")
            return _receive(response, part, done, size)
        if "Range" in headers and response.status_code == 416:  # nothing is missing, or the file is shorter now
            if response.headers.get("Content-Range", "") == f"bytes */{done}":
                return part
            part.unlink()
            raise _TryAgain("the file on the server has changed")
        _check(response, size)
        part.unlink(missing_ok=True)
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        tag_file.write_text(tag, encoding="latin-1")
        return _receive(response, part, 0, size)


def _check(response: requests.Response, size: int) -> None:
    """Raise DownloadError or _TryAgain if the server refuses, or has a file of another size."""
    if response.status_code != 200:
        kind = _TryAgain if response.status_code in RETRIED else DownloadError
        raise kind(f"the server answers {response.status_code} {response.reason}")
    length = _length(response)
    if size and length and length != size:
        raise DownloadError(f"the server has {length} bytes, and the file has {size}")
    if (length or 0) > LARGEST:
        raise DownloadError(f"the server has {length / 1e9:.0f} GB, which no such file has")


def _receive(response: requests.Response, part: Path, done: int, size: int) -> Path:
    """Append the body to the ``part``, which has ``done`` bytes, and return it."""
    length = _length(response)
    total = done + length if length else size
    with (
        open(part, "ab" if done else "wb") as file,
        progress(total=(total or 0) / 1e6, initial=done / 1e6, description=_name(response.url), unit="MB") as bar,
    ):
        for block in response.iter_content(BLOCK):
            if not done and block.lstrip()[:1] == b"<":
                raise DownloadError("the server sends a web page in place of the file")
            done += len(block)
            if done > (size or LARGEST):
                raise DownloadError(f"the server sends more than {size or LARGEST} bytes")
            file.write(block)
            bar.update(len(block) / 1e6)
        file.flush()
        os.fsync(file.fileno())
    if total and done != total:
        raise _TryAgain(f"the server breaks off after {done} of {total} bytes")
    return part


def discard(part: Path) -> None:
    """Delete a downloaded file that is wrong or no longer needed."""
    for path in (part, part.with_suffix(".tag")):
        path.unlink(missing_ok=True)


def _bytes_in(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _name(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2][:60]


def _in_words(error: Exception) -> str:
    """Return the innermost reason of an error of the library, whose own texts repeat the address and the classes."""
    import requests

    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    if isinstance(error, requests.TooManyRedirects):
        return f"the server redirects more than {REDIRECTS} times"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not valid"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the server breaks off"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached"
    return f"the address cannot be used ({str(error)[:200]})"
