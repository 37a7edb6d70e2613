"""Which names a speaker, a clip or a result may have, so that every stage and every system can handle its files.

The sentences are halves: what is wrong with a name, and the cure. The caller puts the file before them.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from modules.console import option

LONGEST = 255  # as _units counts
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines, which so-vits-svc 4.1 parts a filelist by
SEPARATORS = "|\\"  # a line's fields lie between '|', and readers take '\' for '/'
NOT_ON_WINDOWS = '<>:"/\\|?*' + "".join(map(chr, range(32)))


def speaker_flaw(name: str) -> str | None:
    """Why a speaker's folder cannot be called ``name``; None if it can."""
    if not is_one_folder(name):
        return "has a name that no folder inside another can have; rename it"
    return list_flaw(name) or length_flaw(name)


def result_flaw(name: str, speaker: str) -> str | None:
    """Why no song of ``speaker`` can be written to a file called ``name``; None if one can."""
    odd = sorted(set(name) & set(NOT_ON_WINDOWS if os.name == "nt" else "/\0"))
    if odd:
        return f"would have {odd[0]!r} in its name, from the speaker '{speaker}'; {_number()}"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return f"would have a name that is no text, from the speaker {speaker!r}; {_number()}"
    surplus = _units(name) - LONGEST
    if surplus <= 0:
        return None
    number = f", or {_number()}" if _units(speaker) > surplus + 3 else ""
    return f"would have a name {_count(surplus)} too long; rename the song{number}"


def _number() -> str:
    return f"give the speaker's number with {option('spk')}"


def list_flaw(text: str) -> str | None:
    """Why ``text`` cannot be a part of a filelist's line, be it read here or by so-vits-svc 4.1; None if it can."""
    odd = sorted(set(text) & set(SEPARATORS + LINE_ENDS))
    if odd:
        return f"has {odd[0]!r} in its name, which a filelist cannot hold; rename it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "has a name that is not valid Unicode, which a filelist cannot hold; rename it"
    return None


def length_flaw(name: str, ending: str = "") -> str | None:
    """Why no file can be called ``name`` if another one is called after it, with ``ending`` behind; None if one can."""
    surplus = _units(name + ending) - LONGEST
    if surplus <= 0:
        return None
    beside = f" for the files beside it, such as *{ending}" if ending else ""
    return f"has a name that is {_count(surplus)} too long{beside}; shorten it"


def is_one_folder(name: str) -> bool:
    """Whether ``folder / name`` lies in ``folder`` itself, whatever a configuration calls its speaker."""
    return Path(name).name == name and name not in ("", "..")


def same_file_key(name: str) -> str:
    """Equal for the names of one file where case, Unicode's normal form, and blanks and dots at the end make no
    difference: for all of Windows' and macOS' file systems."""
    return nfd(nfd(name).casefold()).rstrip(" .")


def nfd(text: str) -> str:
    """Equal for texts that are the same to a reader: accents are apart from their letters."""
    return unicodedata.normalize("NFD", text)


def _units(name: str) -> int:
    """The length by which a file system limits names: in bytes, on Windows in UTF-16 code units."""
    return len(name.encode("utf-16-le", "surrogatepass")) // 2 if os.name == "nt" else len(os.fsencode(name))


def _count(units: int) -> str:
    return f"{units} {'character' if os.name == 'nt' else 'byte'}{'s' if units > 1 else ''}"
