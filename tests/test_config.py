import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from bfrbctl import config
from bfrbctl.config import as_mapping, build, commented_toml, expected, from_mapping, read_toml, settings_table
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.errors import UsageError
from bfrbctl.features import FeatureConfig
from bfrbctl.models.interface import model_kind
from bfrbctl.models.lightgbm.library import parameter_names
from bfrbctl.prediction.packing import PackConfig
from bfrbctl.recordings.preparation import PrepareConfig
from bfrbctl.simulation import SimulationConfig

STAGES = (
    PrepareConfig,
    FeatureConfig,
    model_kind("lgbm").config_class,
    model_kind("keras").config_class,
    BlendConfig,
    SimulationConfig,
    PackConfig,
)


class Settings(config.Settings):
    rate: float = Field(default=0.1, gt=0, lt=5, description="Speed")
    rounds: int = Field(default=10, ge=1, le=100, description="How long")
    mode: Literal["fast", "slow"] = "fast"
    families: tuple[str, ...] = ("a",)
    deep: bool = False
    limit: int | None = None


class Open(config.Settings):
    rounds: int = 10
    params: Mapping[str, float] = Field(default_factory=dict)


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
        ("rounds=3.5", "--set rounds=3.5: rounds is 3.5, expected a whole number from 1 to 100, for example 10"),
        ("rounds=0", "--set rounds=0: rounds is 0, expected a whole number from 1 to 100$"),
        ("rate=5.0", "rate is 5.0, expected a number, above 0 and below 5$"),
        ("rate=nan", "rate is nan, expected a number, above 0 and below 5"),
        ("limit=a", "limit is 'a', expected a whole number"),
        ("mode=slo", r"expected fast or slow\n hint: did you mean slow\?"),
        ("rounds", "expected key=value"),
        ("deep=1", "deep is 1, expected true or false"),
        ("rate=true", "rate is True, expected a number"),
    ],
)
def test_a_wrong_override_is_explained(override: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(Settings, overrides=[override])


def test_names_that_are_no_fields_go_to_params_where_there_is_such_a_field() -> None:
    assert build(Open, overrides=["rounds=3", "sigmoid=1.5", "drop_rate=0.1"]) == Open(
        rounds=3, params={"sigmoid": 1.5, "drop_rate": 0.1}
    )


class Checked(Open):
    @field_validator("params")
    @classmethod
    def _refuse(cls, params: Mapping[str, float]) -> Any:
        raise expected("nothing")


class Sized(config.Settings):
    sizes: tuple[int, ...] = ()


def test_numbers_with_commas_between_are_numbers_and_one_alone_is_a_list_of_one() -> None:
    assert (
        build(Sized, overrides=["sizes=64,128"])
        == build(Sized, overrides=["sizes=[64, 128]"])
        == Sized(sizes=(64, 128))
    )
    assert build(Sized, overrides=["sizes=64"]) == Sized(sizes=(64,))
    with pytest.raises(UsageError, match="sizes is 64, wide, expected a list of whole numbers, with commas between"):
        build(Sized, overrides=["sizes=64,wide"])


@pytest.mark.parametrize("kind", ["lgbm", "keras"])
def test_every_name_of_another_tool_leads_to_a_setting(kind: str) -> None:
    stage = model_kind(kind).config_class
    for name, suggested in stage.ELSEWHERE.items():
        assert name not in stage.model_fields
        assert suggested.split(",")[0] in stage.model_fields
        if kind == "lgbm":
            assert name not in parameter_names()  # LightGBM would read it as a parameter of its own
        with pytest.raises(UsageError, match=f"no setting named '{name}'\\n hint: did you mean {suggested[:8]}"):
            build(stage, overrides=[f"{name}=1"])


@pytest.mark.parametrize("kind", ["lgbm", "keras"])
def test_lr_suggests_the_learning_rate(kind: str) -> None:
    with pytest.raises(UsageError, match=r"did you mean learning_rate\?"):
        build(model_kind(kind).config_class, overrides=["lr=0.01"])


def test_dropout_is_said_to_be_a_factor() -> None:
    with pytest.raises(UsageError, match="did you mean dropout_factor, a factor on all dropout rates and not a rate"):
        build(model_kind("keras").config_class, overrides=["dropout=0.3"])


def test_patience_is_said_to_be_gone() -> None:
    with pytest.raises(UsageError, match="did you mean epochs, how long training is: the schedule runs to its end"):
        build(model_kind("keras").config_class, overrides=["patience=5"])


@pytest.mark.parametrize(
    ("text", "match"), [("filters=64", "filters is 64, expected two whole"), ("units=2,9", "2, 9")]
)
def test_widths_that_cannot_be_are_explained(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(model_kind("keras").config_class, overrides=[text])


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("rate = = 1")
    with pytest.raises(UsageError, match=r"c.toml: is not TOML"):
        build(Settings, file=tmp_path / "c.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        build(Settings, file=tmp_path / "none.toml")


def test_a_configuration_survives_a_manifest() -> None:
    built = Settings(families=("p", "q"), limit=3)
    assert from_mapping(Settings, as_mapping(built), "manifest.json") == built


@pytest.mark.parametrize(("text", "value"), [(".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("1.5e-1", 0.15), ("2", 2.0)])
def test_a_number_may_be_written_as_people_do(text: str, value: float) -> None:
    class Cut(config.Settings):
        cut: float = 0.0

    found = build(Cut, overrides=[f"cut={text}"]).cut
    assert (found, type(found)) == (value, float)


def test_each_wrong_setting_is_named_with_the_place_that_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("rounds = 0\nrate = 2.0\n")
    with pytest.raises(UsageError) as caught:
        build(Settings, file=tmp_path / "c.toml", overrides=["rate=9"], mode="quick", limit=-0.5)
    for text in (
        f"{tmp_path}/c.toml: rounds is 0, expected",
        "--set rate=9: rate is 9, expected",
        "--mode is 'quick', expected fast or slow",
        "and 1 more",
    ):
        assert text in caught.value.what


def test_settings_made_in_code_are_checked_as_well() -> None:
    for wrong in ({"rounds": 0}, {"rounds": "3"}, {"rond": 3}, {"mode": "slo"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Settings(**wrong)
    with pytest.raises(UsageError, match=r"no setting named 'rond'\n hint: did you mean rounds\?"):
        Settings(**{"rond": 3})
    with pytest.raises(ValidationError, match="frozen"):
        Settings().rounds = 3  # type: ignore[misc]


def test_a_copy_with_changes_is_checked_as_well() -> None:
    assert Settings().model_copy(update={"rounds": 3}) == Settings(rounds=3)
    with pytest.raises(UsageError, match="rounds is 0"):
        Settings().model_copy(update={"rounds": 0})


def test_a_setting_of_the_interrupted_run_that_no_longer_fits_is_named() -> None:
    assert build(Settings, earlier={"rounds": 3}, rate=1).rounds == 3
    for earlier in ({"rounds": 1000}, {"round": 3}):
        with pytest.raises(UsageError, match=r"^the interrupted run has round") as caught:
            build(Settings, earlier=earlier)
        assert "--force" in str(caught.value)


def test_a_parameter_is_blamed_on_its_origin_alone(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("sigmoid = 1.5\n")
    with pytest.raises(UsageError, match=r"c\.toml: params is"):
        build(Checked, file=tmp_path / "c.toml")
    with pytest.raises(UsageError, match=r"^params is"):
        build(Checked, file=tmp_path / "c.toml", overrides=["eta=1"])


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__module__)
def test_every_setting_says_what_it_is_for_in_one_line(stage: type[config.Settings]) -> None:
    for name, field in stage.model_fields.items():
        assert field.description and "\n" not in field.description, name
        assert not field.description.endswith("."), name


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__module__)
def test_the_commented_file_reads_back_to_the_defaults(stage: type[config.Settings], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(commented_toml(stage))
    required = {name: "long-name" for name, field in stage.model_fields.items() if field.is_required()}
    assert build(stage, file=tmp_path / "c.toml", **required) == stage(**required)
    written = read_toml(tmp_path / "c.toml")
    for name, default in as_mapping(stage(**required)).items():
        assert name in required or default in (None, {}) or written.pop(name) == default
    assert written == {}


def test_the_commented_file_says_what_each_setting_may_be() -> None:
    text = commented_toml(Settings)
    assert "# Speed.\n# Value: a number, above 0 and below 5.\nrate = 0.1\n" in text
    assert "# How long.\n# Value: a whole number from 1 to 100.\nrounds = 10\n" in text
    assert '# Value: fast or slow.\nmode = "fast"\n' in text
    assert "# Value: a whole number.\n# limit =\n" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__module__)
def test_the_table_of_the_documentation_has_a_row_for_each_setting(stage: type[config.Settings]) -> None:
    rows = settings_table(stage).splitlines()
    assert [row.split("`")[1] for row in rows[2:]] == list(stage.model_fields)
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__module__)
def test_settings_travel_to_other_processes(stage: type[config.Settings]) -> None:
    required = {name: "long-name" for name, field in stage.model_fields.items() if field.is_required()}
    made = stage(**required)
    assert pickle.loads(pickle.dumps(made)) == made
    assert from_mapping(stage, as_mapping(made), "task") == made


@pytest.mark.parametrize("stage", STAGES)
def test_every_number_has_a_smallest_and_a_largest_value(stage: type[config.Settings]) -> None:
    for name, field in stage.model_fields.items():
        if field.annotation in (int, float):
            bounds = {type(bound).__name__ for bound in field.metadata}
            assert bounds & {"Ge", "Gt"} and bounds & {"Le", "Lt"}, f"{name} has no bounds"


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 3000], ids=["too many digits", "nested too deep"])
def test_a_value_that_the_parser_gives_up_on_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rounds is "):
        build(Settings, overrides=[f"rounds={text}"])
    file = tmp_path / "c.toml"
    file.write_text(f"rounds = {text}\n")
    with pytest.raises(UsageError, match="is not TOML"):
        read_toml(file)


def test_an_empty_item_of_a_list_is_shown() -> None:
    with pytest.raises(UsageError, match=r"rounds is \['', ''\]"):
        build(Settings, overrides=["rounds=,"])
