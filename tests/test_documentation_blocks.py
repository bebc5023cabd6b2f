"""Every fenced block in the pages is checked by its language: commands are parsed, Python is compiled, TOML is built.

A block without a language, or of one that has no check here, fails.
"""

import ast
import csv
import doctest
import functools
import inspect
import json
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bfrbctl.artefacts.folders import Folder
from bfrbctl.cli import main
from bfrbctl.cli.app import app
from bfrbctl.config import build
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.features import FeatureConfig
from bfrbctl.models.interface import model_kind
from bfrbctl.simulation import SimulationConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
GENERATED = ROOT / "docs" / "cli.md"
"""The page of help texts, which is compared as a whole."""

OTHER_PROGRAMS = frozenset(
    {"bfrbctl", "cd", "dask", "git", "kaggle", "make", "pip", "python", "python3", "sh", "tensorboard", "unzip"}
)
"""What a command in the pages may begin with: this project, and the programs that a user has beside it."""


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in FENCE.finditer(text):
        body = re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[2].strip(), body))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


# ------------------------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[list[str]]:
    """Give the words of each command of a shell text, without assignments in front of it and redirections after it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                words.append(word)
                continue
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                yield words[: words.index(">")] if ">" in words else words
            words = []


def settings_class(words: list[str]) -> Any:
    """Give the class that checks the settings of a command."""
    classes = {"simulate": SimulationConfig, "featurize": FeatureConfig, "oof-blend": BlendConfig}
    return model_kind(words[1]).config_class if words[0] == "train" else classes[words[0]]


def check_bfrbctl(words: list[str]) -> None:
    """Parse a command as the program does, and build the settings that it is given."""
    command: Any = get_command(app)
    rest = list(words)
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    if "--help" in rest or "--version" in rest:
        return
    command.make_context(" ".join(["bfrbctl", *words]), rest)  # takes words out of `rest`
    given = [after for word, after in pairwise(words) if word == "--set"]
    if given:
        build(settings_class(words), overrides=given)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    unknown = [word for word in words if "=" not in word and word not in targets]
    assert not unknown, f"no such target of make: {unknown}"


def check_python(words: list[str]) -> None:
    """See that a script exists and knows the options that it is given."""
    if words[0] == "-m":
        files = [word for word in words if word.startswith(("tests/", "benchmarks/"))]
        assert [name for name in files if not (ROOT / name).exists()] == []
        return
    script = ROOT / words[0]
    assert script.is_file(), f"no such script: {words[0]}"
    source = script.read_text("utf-8")
    assert [word for word in words if word.startswith("--") and word not in source + "--help"] == []


def check_sh(block: Block) -> None:
    checks: dict[str, Callable[[list[str]], None]] = {
        "bfrbctl": check_bfrbctl,
        "make": check_make,
        "python": check_python,
        "sh": check_python,
    }
    for words in commands(block.text):
        program = words[0].rpartition("/")[2]
        assert program in OTHER_PROGRAMS, f"{block}: nobody checks the command {program}"
        try:
            checks.get(program, lambda _: None)(words[1:])
        except Exception as error:
            raise AssertionError(f"{block}: {' '.join(words)}: {error}") from error


# ------------------------------------------------------------------------------------------------ other languages


def imported(tree: ast.AST) -> dict[str, Any]:
    """Give what the imports of a text bring, by name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = import_module(node.module)
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                there = getattr(module, alias.name, None)
                found[alias.asname or alias.name] = import_module(whole) if there is None else there
    return found


def check_python_code(block: Block) -> None:
    """Compile Python, import what it imports, and bind the arguments of calls to that. Doctests are run by page."""
    if ">>>" in block.text:
        doctest.DocTestParser().get_examples(block.text)
        return
    tree = ast.parse(block.text, str(block))
    names = imported(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        path = ast.unparse(call.func).split(".")
        if path[0] not in names or any(keyword.arg is None for keyword in call.keywords):
            continue
        function = functools.reduce(getattr, path[1:], names[path[0]])
        inspect.signature(function).bind(*call.args, **{str(keyword.arg): None for keyword in call.keywords})


def check_toml(block: Block) -> None:
    """Parse TOML, and build the settings of the command that its first line names."""
    content = tomllib.loads(block.text)
    command = re.match(r"#.*`bfrbctl ([a-z -]+)`", block.text)
    assert command, f"{block}: its first line names no command, such as `bfrbctl train lgbm`"
    build(settings_class(command[1].split()), **content)


def check_json(block: Block) -> None:
    json.loads(block.text)


def check_csv(block: Block) -> None:
    """See that every line has the fields of the header."""
    rows = list(csv.reader(block.text.splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}, block


def check_text(block: Block) -> None:
    assert block.page == GENERATED, f"{block}: text is checked by nothing; give it a language"


CHECKS: dict[str, Callable[[Block], None]] = {
    "sh": check_sh,
    "python": check_python_code,
    "toml": check_toml,
    "json": check_json,
    "csv": check_csv,
    "text": check_text,
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_checked_by_its_language(block: Block) -> None:
    assert block.language in CHECKS, f"{block}: no check for the language {block.language!r}"
    CHECKS[block.language](block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_belongs_to_a_block(page: Path) -> None:
    fences = re.findall(r"^ *```", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks_of(page))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("", "anything"),
        ("ruby", "puts 1"),
        ("text", "anything"),
        ("sh", "bfrbctl prepare raw/ data/ --fold 3"),
        ("sh", "bfrbctl prepare raw/ data/ --folds three"),
        ("sh", "bfrbctl train forest features/ model/"),
        ("sh", "bfrbctl featurize data/"),
        ("sh", "TF=1 bfrbctl train keras features/ \\\n    keras/ --select best"),
        ("sh", "bfrbctl inspect oof blend/ && bfrbctl train lgbm features/ lgbm/ --set max_bin=many"),
        ("sh", "make cake"),
        ("sh", "python examples/none.py"),
        ("sh", "python docs/generate.py --fast"),
        ("sh", "curl example.org"),
        ("python", "from bfrbctl import Predicter"),
        ("python", "from bfrbctl.prediction import gateway\n\ngateway.serv('blend')"),
        ("python", "from bfrbctl import Predictor\n\nPredictor.open('blend', sha256='...')"),
        ("python", "x = = 1"),
        ("toml", "# settings of `bfrbctl train lgbm`\nmax_bin = 'many'"),
        ("toml", "max_bin = 63"),
        ("json", "{'a': 1}"),
        ("csv", "a,b\n1,2,3"),
    ],
)
def test_a_wrong_block_is_found(language: str, text: str) -> None:
    block = Block(ROOT / "README.md", 1, language, text)
    with pytest.raises(Exception):  # noqa: B017  each check has errors of its own
        test_every_block_is_checked_by_its_language(block)


# --------------------------------------------------------------------------------------------------- inline code


WRITTEN = [page for page in PAGES if page not in (GENERATED, ROOT / "CHANGELOG.md")]


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text("utf-8")))


def check_mentioned(words: list[str]) -> None:
    """See that a command that a sentence mentions exists, and has the options that it is given."""
    command: Any = get_command(app)
    rest = list(words)
    while getattr(command, "commands", None) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        command = command.commands[rest.pop(0)]
    options = {option for item in command.params for option in (*item.opts, *item.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in options | {"--help"}]
    assert not unknown, f"bfrbctl {' '.join(words)}: no option {unknown}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands_and_files_that_sentences_mention_exist(page: Path) -> None:
    for code in inline_code(page):
        words = [word for word in code.split() if word not in ("|", "...")]
        while words and re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)
        if words[:1] == ["bfrbctl"]:
            check_mentioned(words[1:])
        elif words[:1] == ["make"]:
            check_make(words[1:])
        elif words[:1] == ["python"] and len(words) > 1 and "/" in words[1]:
            check_python(words[1:])
        elif re.fullmatch(r"(bfrbctl|tests|docs|examples|benchmarks)/[\w/.]+", code):
            assert (ROOT / code).exists(), f"{page.name}: {code} is not there"


# --------------------------------------------------------------------------------------------------- pages that run


DOCTESTS = [page for page in PAGES if any(">>>" in block.text for block in blocks_of(page))]


@pytest.mark.parametrize("page", DOCTESTS, ids=lambda page: page.name)
def test_the_doctests_of_a_page_run(
    page: Path,
    raw_folder: Path,
    dataset_folder: Folder,
    feature_folder: Folder,
    blend_folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {
        "raw": raw_folder,
        "data": dataset_folder.path,
        "features": feature_folder.path,
        "blend": blend_folder.path,
    }
    for name, path in folders.items():
        shutil.copytree(path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    text = "\n".join(block.text for block in blocks_of(page) if block.language == "python")
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    failed, attempted = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(examples)
    assert (failed, attempted == text.count(">>> ")) == (0, True)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run a command in this process; gives its exit code."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", words)
    try:
        with pytest.raises(SystemExit) as stop:
            main()
    finally:
        signal.signal(signal.SIGTERM, handler)
    return stop.value.code


def test_the_tutorial_for_an_own_device_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(ROOT / "docs" / "own-device.md"):
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
        else:
            for words in commands(block.text):
                assert run(words, monkeypatch) == 0, (str(block), words, capsys.readouterr())
    assert "wrote predictions: 24 sequences" in capsys.readouterr().out
    assert (tmp_path / "lgbm.html").is_file()
