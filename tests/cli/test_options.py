"""Groups of options: how commands get them, and how the help shows them."""

import ast
import fcntl
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import bfrbctl.cli
from bfrbctl.artefacts.folders import open_folder
from bfrbctl.cli.app import app
from bfrbctl.cli.options import SETTINGS_CLASSES, SettingsOptions, grouped
from bfrbctl.errors import UsageError
from bfrbctl.models.interface import model_kind
from tests.raw_recordings import raw_frames, write_raw


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, typer.Option(help="A size.", rich_help_panel="Sizes")] = 3


@dataclass(frozen=True)
class Outer:
    inner: Inner
    names: Annotated[list[str] | None, typer.Option(help="A name [default: none].", rich_help_panel="Names")] = None


@pytest.fixture
def calls() -> list[tuple[Path, Outer, bool]]:
    return []


@pytest.fixture
def small(calls: list[tuple[Path, Outer, bool]]) -> typer.Typer:
    small = typer.Typer(rich_markup_mode=None, add_completion=False)

    @small.command()
    @grouped
    def command(path: Path, outer: Outer, *, fast: bool = False) -> None:
        calls.append((path, outer, fast))

    return small


def test_a_group_is_made_from_its_options(small: typer.Typer, calls: list[tuple[Path, Outer, bool]]) -> None:
    runner = CliRunner()
    assert runner.invoke(small, ["a", "--size", "5", "--names", "x", "--names", "y", "--fast"]).exit_code == 0
    assert runner.invoke(small, ["b"]).exit_code == 0
    assert calls == [
        (Path("a"), Outer(Inner(5), ["x", "y"]), True),
        (Path("b"), Outer(Inner(3), None), False),
    ]
    assert runner.invoke(small, ["b", "--size", "many"]).exit_code == 2


def test_a_command_with_groups_can_be_called_from_python() -> None:
    @grouped
    def command(path: Path, outer: Outer, *, fast: bool = False) -> None:
        calls.append((path, outer, fast))

    calls: list[tuple[Path, Outer, bool]] = []
    command(Path("a"), 4, fast=True)
    command(Path("a"), names=["x"])
    assert calls == [(Path("a"), Outer(Inner(4)), True), (Path("a"), Outer(Inner(), ["x"]), False)]
    with pytest.raises(TypeError, match="colour"):
        command(Path("a"), colour="red")


def sections(text: str) -> dict[str, list[str]]:
    """Read a plain help: the options or arguments under each heading."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            found[line[:-1]] = []
        elif found and line.startswith("  ") and line[2] not in " ":
            found[list(found)[-1]].append(line.split()[0].rstrip(","))
    return found


def test_the_help_shows_options_in_named_groups() -> None:
    text = CliRunner().invoke(app, ["train", "keras", "--help"], terminal_width=80).output
    found = sections(text)
    assert list(found) == ["Arguments", "Options", "Settings", "Run", "Output", "Display"]
    assert found["Arguments"] == ["FEATURES", "MODEL"]
    assert found["Run"] == ["--workers", "--scheduler", "--cache-mb", "--plan"]
    assert found["Output"] == ["--force", "--resume"]
    assert found["Display"] == ["-q", "--json", "--debug", "-h"]
    assert {"--epochs", "--folds", "--tensorboard"} <= set(found["Options"])
    assert "[default: 60]" in text
    assert max(map(len, text.splitlines())) <= 80


def test_options_of_the_same_name_have_the_same_group_and_text_in_every_command() -> None:
    def options(command: Any) -> Iterator[Any]:
        yield from (each for each in command.params if each.param_type_name == "option")
        for child in getattr(command, "commands", {}).values():
            yield from options(child)

    texts: dict[str, set[tuple[str, str]]] = {}
    for option in options(get_command(app)):
        texts.setdefault(option.opts[0], set()).add((option.rich_help_panel, option.help))
    shared = ("--workers", "--scheduler", "--resume", "--force", "--config", "--set", "--quiet", "--json", "--debug")
    assert {name: len(texts[name]) for name in shared} == dict.fromkeys(shared, 1)


def on_a_terminal(*words: str, columns: int) -> tuple[str, float]:
    """Run the program on a terminal: what it shows, and the seconds of CPU that it takes."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([sys.executable, "-m", "bfrbctl", *words], stdout=side, stderr=side, env=environment) as run:
        os.close(side)
        shown = b""
        try:
            while part := os.read(main, 65536):
                shown += part
        except OSError:  # Linux reports the end in this way
            pass
    os.close(main)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0
    return shown.decode(), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_panels_that_fit(columns: int) -> None:
    text, _ = on_a_terminal("oof-blend", "--help", columns=columns)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    titles = [line.split()[1] for line in lines if line.startswith("╭")]
    assert titles == ["Arguments", "Options", "Settings", "Output", "Display"]
    assert any(line.startswith("│ --config FILE") for line in lines)
    assert "[default:" in text and "arithmetic]" in text
    assert {len(line) for line in lines if line.startswith("│")} == {min(columns, 100)}


def test_help_on_a_terminal_costs_less_than_0_3_s_of_cpu() -> None:
    assert min(on_a_terminal("--help", columns=80)[1] for _ in range(5)) < 0.3


@pytest.mark.parametrize("words", [(), ("train",), ("inspect",)], ids=" ".join)
def test_a_group_of_commands_without_a_command_shows_its_help(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "bfrbctl", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "error:" not in done.stderr


def test_no_command_repeats_an_option_that_a_group_has() -> None:
    shared = {"--config", "--set", "--workers", "--scheduler", "--force", "--resume", "--quiet", "--json", "--debug"}
    folder = Path(bfrbctl.cli.__file__).parent
    repeated = [
        f"{path.name}: {node.value}"
        for path in sorted(folder.glob("*.py"))
        if path.name not in ("options.py", "app.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "typer.Option"
        for node in call.args
        if isinstance(node, ast.Constant) and node.value in shared
    ]
    assert repeated == []


@pytest.mark.parametrize("name", SETTINGS_CLASSES)
def test_print_config_prints_all_settings_with_their_defaults(name: str, tmp_path: Path) -> None:
    words = ("train", name) if name in ("lgbm", "keras") else (name,)
    result = CliRunner().invoke(app, [*words, "--print-config"])
    assert (result.exit_code, result.stderr) == (0, "")
    module, class_name = SETTINGS_CLASSES[name].split(":")
    cls = getattr(import_module(module), class_name)
    (tmp_path / "settings.toml").write_text(result.stdout, encoding="utf-8")
    assert SettingsOptions(config_file=tmp_path / "settings.toml").build(cls) == cls()
    named = {line.lstrip("# ").split(" =")[0] for line in result.stdout.splitlines() if " =" in line}
    assert set(cls.model_fields) <= named
    assert list(tmp_path.iterdir()) == [tmp_path / "settings.toml"]


def test_every_command_with_settings_prints_them() -> None:
    def names(command: Any) -> Iterator[str]:
        if any(each.opts[0] == "--config" for each in command.params):
            yield command.name
        for child in getattr(command, "commands", {}).values():
            yield from names(child)

    assert set(names(get_command(app))) == set(SETTINGS_CLASSES)


@pytest.mark.parametrize("kind", ["lgbm", "keras"])
def test_print_config_of_a_kind_of_models_prints_the_settings_that_it_uses(kind: str) -> None:
    module, class_name = SETTINGS_CLASSES[kind].split(":")
    assert model_kind(kind).config_class is getattr(import_module(module), class_name)


def test_prepare_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=4))
    (tmp_path / "settings.toml").write_text("folds = 2\nseed = 7\n", encoding="utf-8")
    words = ["prepare", str(raw), str(tmp_path / "data"), "--config", str(tmp_path / "settings.toml"), "--seed", "8"]
    assert CliRunner().invoke(app, [*words, "--quiet"]).exit_code == 0
    config = open_folder(tmp_path / "data").config
    assert (config["folds"], config["seed"]) == (2, 8)
    result = CliRunner().invoke(app, [*words, "--append"])
    assert isinstance(result.exception, UsageError)
    assert "--append" in result.exception.what and "--config" in result.exception.what
    assert open_folder(tmp_path / "data").config == config
