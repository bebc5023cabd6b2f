"""The content of a manifest: classes, sensors, folds and counts of a folder, checked when it is opened.

Each kind of folder has a model of its content: the keys that it must have, those that it may have, and the values that
they can have. Bounds keep a stranger's file harmless. Digests are of the JSON as it was parsed, never of a model.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bfrbctl.errors import ArtefactError
from bfrbctl.schema import SensorLayout

MAX_NAMES = 100_000
MAX_COUNT = 2**53

_AGAIN = "make or download the folder again"


def _few(value: Any) -> Any:
    """Refuse what is too long before its items are checked, each of which could be one more error."""
    if isinstance(value, list | dict) and len(value) > MAX_NAMES:
        raise ValueError(f"more than {MAX_NAMES} items")
    return tuple(value) if isinstance(value, list) else value


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a name stands twice")
    return names


def _ascending(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("numbers do not ascend")
    return numbers


Name = Annotated[str, Field(min_length=1, max_length=1000)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Counts = Annotated[Mapping[Name, Count], BeforeValidator(_few)]
Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_few), AfterValidator(_different)]
Flags = Annotated[tuple[bool, ...], BeforeValidator(_few)]
Folds = Annotated[tuple[Count, ...], BeforeValidator(_few)]
Shares = Annotated[tuple[Share, ...], BeforeValidator(_few)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_few)]
Numbers = Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], BeforeValidator(_few), AfterValidator(_ascending)]
Objects = Annotated[tuple[Mapping[str, Any], ...], BeforeValidator(_few)]
Figures = Annotated[Mapping[str, float | None], BeforeValidator(_few)]
Mentions = Annotated[Mapping[str, str], BeforeValidator(_few)]


class Content(BaseModel):
    """Content of some kind of folder; the description of a field says what is expected there."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class LabelledContent(Content):
    """Content with gestures: a target or non-target each."""

    classes: Names = Field(description="different names")
    targets: Flags = Field(description="a list of true and false")

    @model_validator(mode="after")
    def _of_one_length(self) -> "LabelledContent":
        lists = {name: getattr(self, name, None) for name in ("classes", "targets", "prior")}
        sizes = {name: len(values) for name, values in lists.items() if values is not None}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise ValueError(f"classes, targets and prior do not fit each other ({counts})")
        return self


class RecordedContent(LabelledContent):
    """Content of what is made of recordings: of a dataset, of features, of a model or blend."""

    rate_hz: float = Field(ge=0.1, le=10_000, description="a rate from 0.1 to 10000 Hz")
    thm: Numbers = Field(description="ascending numbers of sensors")
    tof: Numbers = Field(description="ascending numbers of sensors")
    n_folds: Count = Field(description="a count")

    @property
    def layout(self) -> SensorLayout:
        """The sensors beside the IMU."""
        return SensorLayout(thm=self.thm, tof=self.tof)


class DatasetContent(RecordedContent):
    """Content of a prepared dataset."""

    sequence_types: Names | None = Field(default=None, description="different names")
    n_sequences: Counts = Field(description="a count for each split")
    n_frames: Count = Field(description="a count")
    n_subjects: Count = Field(description="a count")
    n_files: Count = Field(description="a count")
    n_findings: Count = Field(description="a count")
    sources: Objects | None = Field(default=None, description="a list of objects")


class FeaturesContent(RecordedContent):
    """Content of a feature folder."""

    sequence_types: Names | None = Field(default=None, description="different names")
    n_sequences: Counts = Field(description="a count for each split")
    n_frames: Count = Field(description="a count")
    n_files: Count = Field(description="a count")
    n_features: Count = Field(description="a count")
    n_channels: Count = Field(description="a count")


class JointContent(Content):
    """Joint labels: their names, and the gesture of each as a position in the classes."""

    names: Names
    gesture_of: Folds


class RunContent(RecordedContent):
    """What is known of a model while it trains."""

    model: Name = Field(description="a name")


class ModelContent(RunContent):
    """Content of a model."""

    folds: Folds = Field(description="a list of counts")
    features: Mapping[str, Any] = Field(description="an object")
    prior: Shares = Field(description="a list of shares")
    score: float | None = Field(default=None, description="a number")
    joint: Annotated[JointContent, BeforeValidator(_few)] | None = Field(
        default=None, description="names, and a gesture of each"
    )
    trained_on: Mentions | None = Field(default=None, description="digests of sequences and subjects")


class BlendContent(RecordedContent):
    """Content of a blend."""

    members: Names = Field(description="different names")
    prior: Shares = Field(description="a list of shares")
    score: float | None = Field(default=None, description="a number")
    joint: Annotated[JointContent, BeforeValidator(_few)] | None = Field(
        default=None, description="names, and a gesture of each"
    )
    assign: str | None = Field(default=None, description="off or causal")


class PredictionsContent(LabelledContent):
    """Content of predictions; the score and what belongs to it is there where the input had labels."""

    n_sequences: Count = Field(description="a count")
    n_problems: Count = Field(description="a count")
    warnings: Texts = Field(default=(), description="a list of texts")
    answers: Mentions | None = Field(default=None, description="name, kind and digest of a file")
    score: Figures | None = Field(default=None, description="figures by name")
    headline: str | None = Field(default=None, description="the name of a figure")
    n_labelled: Count | None = Field(default=None, description="a count")
    in_sample: Annotated[Mapping[str, Count | None], BeforeValidator(_few)] | None = Field(
        default=None, description="counts by name"
    )


class RawContent(Content):
    """Content of a folder of simulated raw recordings."""

    n_subjects: Count = Field(description="a count")
    rate_hz: float = Field(ge=0.1, le=10_000, description="a rate from 0.1 to 10000 Hz")


CONTENT: Mapping[str, type[Content]] = MappingProxyType(
    {
        "dataset": DatasetContent,
        "features": FeaturesContent,
        "model": ModelContent,
        "blend": BlendContent,
        "predictions": PredictionsContent,
        "raw": RawContent,
    }
)
"""Kind of folder -> the model of its content."""

C = TypeVar("C", bound=Content)


def read_content(model: type[C], content: Mapping[str, Any], what: str) -> C:
    """Check the content of a manifest, the file `what`, and give it typed.

    Raises
    ------
    ArtefactError
        When a key is missing or unknown, or a value cannot be; names the key, the value, and what was expected.
    """
    if unknown := next((key for key in content if key not in model.model_fields), None):
        raise ArtefactError(
            f"{what}: its content has a key {unknown[:60]!r} that this bfrbctl does not know",
            hint="a later version may have written it: use that one, or do not trust the folder",
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
    if not details["loc"]:
        raise ArtefactError(f"{what}: {details['ctx']['error']}", hint=_AGAIN)
    key = str(details["loc"][0])
    if details["type"] == "missing" and len(details["loc"]) == 1:
        raise ArtefactError(f"{what}: its content lacks {key!r}", hint=_AGAIN)
    expected = model.model_fields[key].description
    raise ArtefactError(f"{what}: {key} is {repr(content[key])[:60]}, expected {expected}", hint=_AGAIN)


class Lookup(dict[str, Any]):
    """The content of a manifest as it was parsed; asking for a key that it lacks is an ArtefactError."""

    def __init__(self, content: Mapping[str, Any], what: Path) -> None:
        super().__init__(content)
        self._what = what

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self._what}: its content lacks {key!r}", hint=_AGAIN)
