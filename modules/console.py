"""What every script shows its user: one sentence for wrong input, log lines and progress bars."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import logging
import os
import reprlib
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# What the machine refuses, through no fault of the program's: permissions, a full disk, a file for a folder.
REFUSALS = "EACCES EPERM EROFS ENOSPC EDQUOT EEXIST ENOTDIR EISDIR EIO ENOMEM ENAMETOOLONG".split()
BLOCKED = frozenset(getattr(errno, name) for name in REFUSALS if hasattr(errno, name))  # Windows lacks some

UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: control, surrogate, line and paragraph separator

# How often an OpenMP thread looks for work before it sleeps. By default it looks for milliseconds, and threads that
# wait for each other beside another busy process then take several times as long (benchmarks/thread_waiting.py).
SPIN_COUNT = "20000"
LONGEST_VALUE = 1000  # characters of a value or path in a sentence
WAIT_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


class UserError(Exception):
    """Wrong input. The message is the whole sentence for the user: what is wrong, in which file or setting, the cure.

    Settings are named by ``option``.
    """


_flags: dict[str, tuple[str, bool]] = {}  # of the script that runs: each setting's flag, and whether a value follows it


def parse_flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a script's arguments; from then on, until it ends, ``option`` names its flags."""
    arguments = parser.parse_args(argv)
    for action in parser._actions:
        if action.option_strings:
            _flags[action.dest] = action.option_strings[0], action.nargs != 0
    return arguments


def option(name: str, value: object = None) -> str:
    """What the user knows a setting by: its flag in a script that has one, elsewhere the name of the parameter.

    The packages speak of settings by this function alone, for they also serve programs without flags. A flag is found
    by its ``dest`` in the parser, which therefore is the parameter's name. With a ``value`` the result is what to give:
    ``-cr 0``, or a switch alone, or ``cluster_infer_ratio=0``.
    """
    flag, has_value = _flags.get(name, (None, True))
    if value is None:
        return flag or name
    if flag is None:
        return f"{name}={value}"
    return f"{flag} {value}" if has_value else flag


def script(main: Callable[[Sequence[str] | None], int | None]) -> Callable[[Sequence[str] | None], int]:
    """Wrap a script's ``main(argv)``: a UserError, or a refusal of the machine's, becomes one line and exit code 2;
    Ctrl-C becomes 130.

    Anything else is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        limit_spinning()
        _accept_any_text()
        set_up_logging()
        _flags.clear()
        try:
            return main(argv) or 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            print(f"error: {printable(sentence)}", file=sys.stderr)
            return 2
        finally:
            _flags.clear()

    return run


def limit_spinning() -> None:
    """Let idle OpenMP threads sleep soon, unless the user has chosen how they wait.

    GNU's OpenMP, which PyTorch's Linux builds use, reads this once, when PyTorch is loaded: call it before.
    """
    if not any(name in os.environ for name in WAIT_SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def explain(error: Exception) -> str | None:
    """The sentence for wrong input, a refusal of the machine's or a lack of memory; None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in BLOCKED:
        return f"{error.filename or 'a file'} cannot be written or read: {error.strerror}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_lack_of_memory(error)):
        reason = f" ({str(error).partition(chr(10))[0]})" if str(error) else ""
        return f"the memory is too small{reason}; end other programs, and run it again"
    return None


class _ShortRepr(reprlib.Repr):
    """repr, cut short where a value is long or nests deep."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 200, 200, 60
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 20

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 10_000:  # more digits than Python writes
            return f"a whole number of {value.bit_length()} bits"
        return super().repr_int(value, level)


def short_repr(value: Any) -> str:
    """A value of a file's or user's for a sentence: its repr, or the beginning of that; short whatever it is."""
    text = _ShortRepr().repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def failure(item: object, error: Exception) -> str:
    """The sentence about one item of many that failed with ``error``; the traceback of a bug is logged."""
    sentence = explain(error)
    if sentence is None:
        sentence = f"{type(error).__name__}: {error}"
        get_logger("failure").error("%s failed by a bug of the program:", item, exc_info=error)
    return sentence if str(item) in sentence else f"{item}: {sentence}"


def printable(text: object) -> str:
    """The text in one line that steers no terminal: line ends, other control characters and bytes that are not Unicode
    become escapes such as ``\\n`` and ``\\udcff``, for they may stand in the name of a file."""
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in UNPRINTABLE else sign
        for sign in str(text)
    )


def _is_lack_of_memory(error: RuntimeError) -> bool:
    from modules.memory import is_lack_of_memory  # with PyTorch, which is there where a RuntimeError says so

    return is_lack_of_memory(error)


def _accept_any_text() -> None:
    """Write what the console's encoding lacks as ``\\xfc`` or ``\\u540d`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # there may be none, or another object in its place
            stream.reconfigure(errors="backslashreplace")


def set_up_logging() -> None:
    """This program's log lines go to standard error, bare; of other libraries only their warnings."""
    console = _ProgressBarHandler()
    console.setFormatter(_OneLine("%(message)s"))
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING, handlers=[console])
    logging.getLogger("svc").setLevel(logging.DEBUG)


class _ProgressBarHandler(logging.Handler):
    """Writes to standard error without breaking a progress bar that is being drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class _OneLine(logging.Formatter):
    """This program's messages as ``printable``; tracebacks, and what other libraries say, as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        message = super().formatMessage(record)
        return printable(message) if record.name.startswith("svc.") else message


def get_logger(noun: str) -> logging.Logger:
    """The logger of one part of the program, for instance ``get_logger("train")``."""
    return logging.getLogger(f"svc.{noun}")


def progress(
    items: Iterable | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    description: str,
    unit: str = "it",
    leave: bool = True,
):
    """A tqdm progress bar on standard error, the same everywhere; where that is no terminal, a log line each minute
    (modules/progress_lines.py); nothing in processes of other ranks than 0.

    ``leave`` says whether it stays there when it is done; a bar within another does not.
    """
    from tqdm import tqdm

    silent = logging.getLogger("svc").getEffectiveLevel() > logging.WARNING
    if not silent and not (sys.stderr and sys.stderr.isatty()):
        from modules.progress_lines import ProgressLines

        return ProgressLines(items, total, initial, description, unit, within=not leave)
    return tqdm(
        items,
        total=total,
        initial=initial,
        desc=printable(description),
        unit=unit,
        leave=leave,
        dynamic_ncols=True,
        mininterval=0.3,
        disable=silent,
    )


@contextlib.contextmanager
def nested_progress(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar within another's work, which is told (how much is done, of how much) as that becomes known."""
    with progress(description=description, unit=unit, leave=False) as bar:

        def watch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield watch
