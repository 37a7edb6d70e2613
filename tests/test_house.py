"""Rules of the repository: which package may import which, and scripts whose help is fast."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path.stem != "spkmix")  # the user's map
LAYERS = {
    "modules": 0,
    "evaluation": 1,
    "vdecoder": 1,
    "vencoder": 1,
    "vits": 2,
    "diffusion": 2,
    "preparation": 2,
    "cluster": 2,
    "inference": 3,
    "onnxexport": 3,
    "demonstration": 4,
    "downloads": 4,
    "live": 4,
    "checkup": 5,
}
HEAVY = ("torch", "torchaudio", "librosa", "faiss", "scipy", "matplotlib")


def imports(path):
    """Yield the top-level names of all imports anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_a_package_imports_only_packages_of_lower_layers(package):
    for path in (ROOT / package).rglob("*.py"):
        for name in set(imports(path)) - {package}:
            if name in LAYERS:
                assert LAYERS[name] < LAYERS[package], f"{path.relative_to(ROOT)} imports {name}"
            assert name not in ("tests", "benchmarks"), f"{path.relative_to(ROOT)} imports {name}"


FLAG = re.compile(r"(?<![\w}-])--?[A-Za-z]\w*")
COMMAND = re.compile(r"(\.py|pip install|torchrun) --?[\w-]+|^{} --use_diff")  # commands with their flags
NO_MESSAGES = {"-onnx", "-v3 or a model made from it"}  # the suffix of keys of graphs; the end of a model's name


def texts(path):
    """Yield the strings of a file except docstrings, with ``{}`` for the values of f-strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.add(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
            yield node.value


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_packages_contain_no_flags_because_programs_without_flags_use_them(package):
    """``modules.console.option`` names settings, in a script by their flags."""
    others = {"modules/audio/ffmpeg.py", "downloads/wheel.py", "checkup/machine.py"}  # flags of ffmpeg, pip, nvidia-smi
    commands = {"checkup/project.py"}  # whole commands, which a person copies
    scripts = {"cluster/train_cluster.py", "modules/console.py"}  # a script, and for scripts
    exceptions = {ROOT / name for name in others | commands | scripts}
    for path in set((ROOT / package).rglob("*.py")) - exceptions:
        for text in set(texts(path)) - NO_MESSAGES:
            assert not FLAG.search(COMMAND.sub("", text)), f"{path.relative_to(ROOT)}: {text}"


def test_nothing_imports_a_script_but_the_users_own_map():
    scripts = {path.stem for path in SCRIPTS}
    for package in LAYERS:
        for path in (ROOT / package).rglob("*.py"):
            assert not scripts & set(imports(path)), path


@pytest.mark.parametrize("package", ["vencoder", "modules/f0"])
def test_an_entry_of_a_table_imports_no_other_entry(package):
    if package == "modules/f0":
        shared = {"contour", "world", "salience", "rmvpe_network", "fcpe_network"}
    else:
        shared = {"encoder", "renaming", "fairseq_names", "weight_shapes", "attention", "whisper_network"}
        shared |= {"wave_encoder", "wave_transformer", "wave_convolutions", "position_convolution", "speech_like"}
    stem = package.replace("/", ".")
    entries = {path.stem for path in (ROOT / package).glob("*.py")} - shared - {"__init__"}
    for path in (ROOT / package).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        others = [other for other in entries - {path.stem} if f"from {stem}.{other} import" in text]
        assert not others or path.stem == "__init__", f"{path} imports {others}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_shows_an_example_and_imports_nothing_heavy(script):
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(script)!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    assert f"python {script.name}" in run.stdout or f"make {script.stem}" in run.stdout, "an example command is missing"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_a_page(script):
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"build_parser", "main"} <= functions


def test_every_file_has_a_docstring():
    for folder in (*LAYERS, "benchmarks", "."):
        for path in (ROOT / folder).glob("*.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
