"""What is trained on what: a cross-validation, and the form in which other processes get it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bfrbctl.artefacts.folders import Folder, Pinned
from bfrbctl.config import as_mapping, from_mapping
from bfrbctl.evaluation.labels import Sort
from bfrbctl.execution.executor import Executor
from bfrbctl.models.interface import Kind, model_kind


@dataclass(frozen=True)
class CrossValidation:
    """What is trained on what.

    Parameters
    ----------
    features
        The feature folder.
    kind
        The kind of model, from `models.interface.model_kind`.
    config
        Its settings.
    folds
        Folds to hold out; all when empty.
    seed
        Seed of the run.
    labels
        `gesture`, or `joint`: a gesture's postures and first behaviours are classes of their own.
    cache_bytes
        Memory for features; what goes beyond lies in mapped files. None is no bound.
    keep_steps
        Whether every step of the folds is kept, to choose one when all are there; `cross_validate` decides it.
    """

    features: Folder
    kind: Kind
    config: Any
    folds: tuple[int, ...] = ()
    seed: int = 0
    labels: Sort = "gesture"
    cache_bytes: int | None = None
    keep_steps: bool = False

    @property
    def n_members(self) -> int:
        """Members of a fold that can be trained as tasks of their own."""
        return self.kind.n_members(self.config)

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest keeps: every setting that changes the result, which the number of threads does not."""
        settings = {key: value for key, value in as_mapping(self.config).items() if key != "threads"}
        return {"model": self.kind.name, "folds": list(self.folds), "labels": self.labels, "settings": settings}


@dataclass(frozen=True)
class PortableJob:
    """A cross-validation as another process gets it: paths, names and plain values."""

    features: Pinned
    kind: str
    settings: Mapping[str, Any]
    seed: int
    labels: Sort
    cache_bytes: int | None
    keep_steps: bool

    @classmethod
    def of(cls, job: CrossValidation) -> "PortableJob":
        """Give the portable form of a job."""
        return cls(
            features=job.features.pinned(),
            kind=job.kind.name,
            settings=as_mapping(job.config),
            seed=job.seed,
            labels=job.labels,
            cache_bytes=job.cache_bytes,
            keep_steps=job.keep_steps,
        )

    def shared_out(self, executor: Executor, n_tasks: int) -> "PortableJob":
        """Divide the threads, and this machine's memory for features, among tasks that run at the same time."""
        settings, bound = dict(self.settings), self.cache_bytes
        if settings.get("threads") == 0:
            settings["threads"] = executor.threads(n_tasks)
        if bound is not None and not executor.cluster:
            bound //= executor.at_once(n_tasks)
        return replace(self, settings=settings, cache_bytes=bound)

    def open(self) -> CrossValidation:
        """Give the job in this process; raises what opening the folder and importing the kind raise."""
        kind = model_kind(self.kind)
        config = from_mapping(kind.config_class, self.settings, "settings of the training")
        return CrossValidation(
            self.features.open(),
            kind,
            config,
            seed=self.seed,
            labels=self.labels,
            cache_bytes=self.cache_bytes,
            keep_steps=self.keep_steps,
        )
