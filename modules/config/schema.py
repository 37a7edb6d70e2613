"""Typed dataclasses for the objects of a configuration file: checked when read, written back unchanged."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modules.console import UserError, get_logger, short_repr
from modules.untrusted.text_file import read_text

log = get_logger("config")

MOST_LAYERS = 1000  # per kind; a limit against files whose network would take years to build
HIGHEST_RATE = 1_000_000  # Hz
INTEGER_LIMIT = 1 << 31  # limit of sizes and counts
EXPONENT = re.compile(r"[+-]?\d+e[+-]?\d+", re.IGNORECASE)  # such as 1e-4, which YAML 1.1 reads as text


def ours(default: Any, **rules: Any) -> Any:
    """Return a field that the published file does not have; ``default`` gives the published behaviour.

    ``rules`` are those of the other fields: ``allowed``, ``above``, ``least``, ``most``, ``any_size``.
    """
    return field(default_factory=lambda: copy.deepcopy(default), metadata={"ours": True, **rules})


def choice(default: Any, *allowed: Any) -> Any:
    """Return a field that takes one of a few values."""
    return field(default=default, metadata={"allowed": allowed})


def positive(default: Any, **rules: Any) -> Any:
    """Return a field for a number above zero; ``most`` in the rules is its upper limit."""
    return field(default=default, metadata={"above": 0, **rules})


def at_least(least: float, default: Any) -> Any:
    """Return a field for a number that is ``least`` or more."""
    return field(default=default, metadata={"least": least})


def any_size(default: int) -> Any:
    """Return a field for a whole number that may exceed INTEGER_LIMIT."""
    return field(default=default, metadata={"any_size": True})


def listed(*default: Any) -> Any:
    """Return a field for a list; each section has its own copy of the default."""
    return field(default_factory=lambda: copy.deepcopy(list(default)))


@dataclass
class Section:
    """One object of a configuration file. ``extra`` holds the unknown keys."""

    extra: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "") -> typing.Self:
        """Build the section from a file's values; ``where`` ("config.json: train") is its name in errors.

        Missing keys get their defaults. Raises UserError naming the key, what was found and what is allowed.
        """
        if not isinstance(values, dict):
            raise UserError(f"{where.rstrip(': ')} is {short_repr(values)}; it must be an object of keys and values")
        hints = typing.get_type_hints(cls)
        known = {f.name: f for f in dataclasses.fields(cls) if f.name != "extra"}
        for key in values.keys() - known.keys():
            if near := difflib.get_close_matches(str(key), known.keys() - values.keys(), n=1, cutoff=0.8):
                log.warning("%s is not a known key and has no effect; is %s meant?", _below(where, key), near[0])
        found = {
            key: _checked(value, hints[key], known[key].metadata, _below(where, key))
            for key, value in values.items()
            if key in known
        }
        return cls(**found, extra={key: value for key, value in values.items() if key not in known})

    def to_dict(self) -> dict[str, Any]:
        """Return the section as a file holds it; keys made with ``ours`` only if they differ from the default."""
        values = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name == "extra" or (f.metadata.get("ours") and value == f.default_factory()):
                continue
            values[f.name] = value.to_dict() if isinstance(value, Section) else value
        return {**values, **self.extra}


def _below(where: str, key: str) -> str:
    """Return the name of ``key`` inside ``where``: "config.json: train", then "config.json: train.seed"."""
    return f"{where}{key}" if where.endswith(" ") or not where else f"{where}.{key}"


def _checked(value: Any, hint: Any, rules: Mapping[str, Any], where: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Section):
        return hint.from_dict(value, where)
    if isinstance(value, str) and hint is float and EXPONENT.fullmatch(value):
        value = float(value)
    if not _fits(value, hint):
        raise UserError(f"{where} is {short_repr(value)}; it must be {_in_words(hint)}")
    if "allowed" in rules and value not in rules["allowed"]:
        raise UserError(f"{where} is {short_repr(value)}; allowed: {', '.join(map(repr, rules['allowed']))}")
    if isinstance(value, int) and "any_size" not in rules and abs(value) >= INTEGER_LIMIT:
        raise UserError(f"{where} is {short_repr(value)}; it must be within {INTEGER_LIMIT - 1}")
    if "most" in rules and value is not None and not value <= rules["most"]:
        raise UserError(f"{where} is {value!r}; it must be {rules['most']} or less")
    if "above" in rules and value is not None and not value > rules["above"]:
        raise UserError(f"{where} is {value!r}; it must be above {rules['above']}")
    if "least" in rules and value is not None and not value >= rules["least"]:
        raise UserError(f"{where} is {value!r}; it must be {rules['least']} or more")
    return value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(all(map(_fits, pair, arguments)) for pair in value.items())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _in_words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"a list, each item {_in_words(arguments[0])}"
    if origin is dict:
        example = ', such as {"alto": 0, "tenor": 1}' if arguments[1] is int else ""
        return f"an object of {_in_words(arguments[0])} to {_in_words(arguments[1])}{example}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(option) for option in arguments)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    return words[hint]


def read_configuration(path: str | Path, maker: str) -> str:
    """Read the text of a configuration file, which the command ``maker`` writes.

    Raises UserError if it is missing, empty, or neither UTF-8 nor UTF-16.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise UserError(f"there is no {path}; '{maker}' writes it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} cannot be read: line {line} has letters in another encoding than UTF-8; open it in the editor "
            "that wrote it, and save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None
    if not text.strip():
        raise UserError(f"{path} is empty; '{maker}' writes it")
    return text
