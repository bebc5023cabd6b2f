from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from bfrbctl.config import as_mapping, build, from_mapping
from bfrbctl.errors import UsageError


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


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("rate = = 1")
    with pytest.raises(UsageError, match=r"c.toml: is not TOML"):
        build(Settings, file=tmp_path / "c.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        build(Settings, file=tmp_path / "none.toml")


def test_a_configuration_survives_a_manifest() -> None:
    built = Settings(families=("p", "q"), limit=3)
    assert from_mapping(Settings, as_mapping(built), "manifest.json") == built
