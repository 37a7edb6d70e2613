"""README.md, docs/, configs_template/README.md and DEVELOPING.md match the code: flags, keys, paths, links, names."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from modules.config import Config, DiffusionConfig
from modules.config.schema import Section
from modules.f0 import F0_PREDICTORS
from vencoder import ENCODERS

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
CHINESE = (ROOT / "README_zh.md").read_text(encoding="utf-8")
DEVELOPING = (ROOT / "DEVELOPING.md").read_text(encoding="utf-8")
SCRIPTS = [path.stem for path in sorted(ROOT.glob("*.py")) if path.stem != "spkmix"] + ["cluster.train_cluster"]


def flags_of(script):
    """The flags of a script's parser; of evaluate.py without those of inference_main.py, which it takes too."""
    parser = importlib.import_module(script).build_parser()
    flags = {flag for action in parser._actions for flag in action.option_strings} - {"-h", "--help"}
    return flags - flags_of("inference_main") if script == "evaluate" else flags


def rows():
    """Yield (script names, flags) for each table row of the pages that begins with a flag.

    A row belongs to the scripts that it names, otherwise to those of the code block before it.
    """
    in_code, scripts = False, set()
    for line in "\n".join(PAGES.values()).splitlines():
        if line.startswith("```"):
            in_code = not in_code
            scripts = set() if in_code else scripts
        elif in_code:
            scripts = scripts | set(re.findall(r"python (?:\w+/)?(\w+)\.py", line))
        elif line.startswith("|"):
            first = re.split(r"(?<!\\)\|", line)[1]
            if flags := set(re.findall(r"(?<![\w-])--?[A-Za-z]\w*", first)):
                yield set(re.findall(r"(\w+)\.py", first)) or scripts, flags


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_has_a_row_in_a_page(script):
    name = script.rpartition(".")[2]
    described = set().union(*(flags for scripts, flags in rows() if name in scripts))
    assert flags_of(script) - described == set()


def test_every_flag_in_the_tables_exists():
    existing = {script.rpartition(".")[2]: flags_of(script) for script in SCRIPTS}
    for scripts, flags in rows():
        assert flags <= set().union(*(existing[name] for name in scripts)), scripts


def keys_of(section, prefix=""):
    """Yield the dotted keys of a configuration."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from keys_of(value, f"{prefix}{field.name}.")
        elif field.name != "extra":
            yield prefix + field.name


@pytest.mark.parametrize(("config", "heading"), [(Config(), "config.json"), (DiffusionConfig(), "diffusion.yaml")])
def test_every_configuration_key_is_described(config, heading):
    page = (ROOT / "configs_template" / "README.md").read_text(encoding="utf-8")
    (section,) = [part for part in page.split("\n## ")[1:] if part.startswith(heading)]
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    described = {key for cell in cells for key in re.findall(r"`(.*?)`", cell)}
    assert described == set(keys_of(config))


@pytest.mark.parametrize(
    ("table", "scripts"),
    [(ENCODERS, ["preprocess_flist_config"]), (F0_PREDICTORS, ["preprocess_hubert_f0", "inference_main"])],
    ids=["encoders", "F0 predictors"],
)
def test_every_key_of_a_table_is_in_a_page_and_in_the_help(table, scripts):
    pages = "".join(PAGES.values())
    for script in scripts:
        actions = importlib.import_module(script).build_parser()._actions
        words = re.split(r"[ ,;()]+", " ".join(action.help or "" for action in actions))
        assert [key for key in table if key not in words or f"`{key}`" not in pages] == []


def test_developing_is_short_and_names_what_exists():
    assert len(DEVELOPING.splitlines()) <= 90
    paths = set(re.findall(r"(?<![\w<>/*])[\w/\\]+\.(?:py|md)\b", DEVELOPING))
    assert [path for path in paths if "/" in path and not (ROOT / path.replace("\\", "")).exists()] == []
    code = " ".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if ".venv" not in path.parts)
    names = {name for name in re.findall(r"`([A-Za-z_.]+)(?:\(\))?`", DEVELOPING)}
    assert [name for name in names if not re.search(rf"\b{name.rpartition('.')[2]}\b", code)] == []


def anchors_of(text):
    """The anchors of a page's headings, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README_zh.md"], ids=lambda path: path.name)
def test_links_within_the_repository_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target.read_text(encoding="utf-8")), link


def test_the_chinese_page_has_the_same_parts_and_commands():
    english = PAGES[ROOT / "README.md"]
    code = r"```\n(.*?)```"
    commands = [
        [line.partition("#")[0].strip() for line in re.findall(code, text, re.DOTALL)[0].splitlines()]
        for text in (english, CHINESE)
    ]
    assert commands[0] == commands[1]
    blocks = [
        [re.sub(r"\s*#.*", "", block) for block in re.findall(code, text, re.DOTALL)] for text in (english, CHINESE)
    ]
    assert blocks[0] == blocks[1]
    headings = [re.findall(r"^(#+) (\d?)", text, re.MULTILINE) for text in (english, CHINESE)]
    assert headings[0] == headings[1]
