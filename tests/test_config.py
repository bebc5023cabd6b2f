from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest

from bfrbctl.config import as_mapping, build, from_mapping
from bfrbctl.errors import UsageError
from bfrbctl.models.interface import kind_module
from bfrbctl.models.lightgbm.library import parameter_names


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    rounds: int = 10
    mode: Literal["fast", "slow"] = "fast"
    families: tuple[str, ...] = ("a",)
    deep: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Open:
    rounds: int = 10
    params: Mapping[str, float] = field(default_factory=dict)


def test_options_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('rate = 1\nrounds = 2\nfamilies = ["x", "y"]\n')
    built = build(Settings, file=file, overrides=["rounds=3", "deep=true"], rounds=4, rate=None)
    assert built == Settings(rate=1.0, rounds=4, families=("x", "y"), deep=True)


def test_an_override_may_be_a_word_a_list_or_a_number() -> None:
    built = build(Settings, overrides=["mode=slow", "families=b,c", "limit=7", "rate=2"])
    assert built == Settings(mode="slow", families=("b", "c"), limit=7, rate=2.0)


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("round=3", "did you mean rounds"),
        ("rounds=3.5", "rounds is 3.5, expected int"),
        ("mode=middle", "expected fast or slow"),
        ("rounds", "expected key=value"),
        ("deep=1", "deep is 1, expected bool"),
        ("rate=true", "rate is True, expected float"),
    ],
)
def test_a_wrong_override_is_explained(override: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(Settings, overrides=[override])


def test_names_that_are_no_fields_go_to_params_where_there_is_such_a_field() -> None:
    assert build(Open, overrides=["rounds=3", "sigmoid=1.5", "drop_rate=0.1"]) == Open(
        3, {"sigmoid": 1.5, "drop_rate": 0.1}
    )


@dataclass(frozen=True)
class Sized:
    sizes: tuple[int, ...] = ()


def test_numbers_with_commas_between_are_numbers_and_one_alone_is_a_list_of_one() -> None:
    assert build(Sized, overrides=["sizes=64,128"]) == build(Sized, overrides=["sizes=[64, 128]"]) == Sized((64, 128))
    assert build(Sized, overrides=["sizes=64"]) == Sized((64,))
    with pytest.raises(UsageError, match=r"sizes is \['64', 'wide'\], expected one or more int"):
        build(Sized, overrides=["sizes=64,wide"])


@pytest.mark.parametrize("kind", ["lgbm", "keras"])
def test_every_name_of_another_tool_leads_to_a_setting(kind: str) -> None:
    config = kind_module(kind).Config
    names = {each.name for each in fields(config)}
    for name, suggested in config.ELSEWHERE.items():
        assert name not in names
        assert suggested.split(",")[0] in names
        if kind == "lgbm":
            assert name not in parameter_names()  # LightGBM would read it as a parameter of its own
        with pytest.raises(UsageError, match=f"no setting named '{name}'\\n hint: did you mean {suggested[:8]}"):
            build(config, overrides=[f"{name}=1"])


@pytest.mark.parametrize("kind", ["lgbm", "keras"])
def test_lr_suggests_the_learning_rate(kind: str) -> None:
    with pytest.raises(UsageError, match=r"did you mean learning_rate\?"):
        build(kind_module(kind).Config, overrides=["lr=0.01"])


def test_dropout_is_said_to_be_a_factor() -> None:
    with pytest.raises(UsageError, match="did you mean dropout_factor, a factor on all dropout rates and not a rate"):
        build(kind_module("keras").Config, overrides=["dropout=0.3"])


def test_patience_is_said_to_be_gone() -> None:
    with pytest.raises(UsageError, match="did you mean epochs, how long training is: the schedule runs to its end"):
        build(kind_module("keras").Config, overrides=["patience=5"])


@pytest.mark.parametrize(
    ("text", "match"), [("filters=64", "filters is 64, expected two whole"), ("units=2,9", "2, 9")]
)
def test_widths_that_cannot_be_are_explained(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(kind_module("keras").Config, overrides=[text])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("rate = = 1")
    with pytest.raises(UsageError, match=r"c.toml: is not TOML"):
        build(Settings, file=tmp_path / "c.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        build(Settings, file=tmp_path / "none.toml")


def test_a_configuration_survives_a_manifest() -> None:
    built = Settings(families=("p", "q"), limit=3)
    assert from_mapping(Settings, as_mapping(built), "manifest.json") == built
