"""Pack a model or blend for the competition: a flat folder that `kaggle datasets create -p` uploads as it is.

The folder stays what it was - manifest and digest included, so that every command opens it - and has beside it what a
notebook without internet needs: the wheel of this very bfrbctl, a `submission.py` that installs it and serves the
gateway, a README, and `dataset-metadata.json` for Kaggle. `pack.json` lists them with their digests; `submission.py`
pins the digests of the wheel and of the model. The same model packed by the same version gives the same bytes.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from bfrbctl import __version__
from bfrbctl.artefacts.files import MAX_JSON_BYTES, FileEntry, encode_json, read_regular
from bfrbctl.artefacts.folders import MANIFEST, METADATA, PACK, Folder, sealed
from bfrbctl.artefacts.outputs import Output
from bfrbctl.config import Settings, expected
from bfrbctl.ensemble.blending import METRICS
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import has_two_sides, headline, score_name
from bfrbctl.prediction.wheel import build_wheel
from bfrbctl.schema import SCENARIOS

README = "README.md"
SUBMISSION = "submission.py"
LICENCES = (
    "CC0-1.0",
    "CC-BY-3.0",
    "CC-BY-3.0-IGO",
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-3.0-IGO",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CDLA-Permissive-1.0",
    "CDLA-Sharing-1.0",
    "DbCL-1.0",
    "EU-ODP-Legal-Notice",
    "FDL-1.3",
    "AGPL-3.0",
    "GPL-2.0",
    "GPL-3.0",
    "LGPL-3.0",
    "ODC-BY-1.0",
    "ODbL-1.0",
    "PDDL",
    "US-Government-Works",
    "apache-2.0",
    "copyright-authors",
    "other",
    "unknown",
)
"""What Kaggle knows by name. Source: "Dataset Metadata" in the documentation of Kaggle's command line."""

_LENGTHS = (6, 50)


class PackConfig(Settings):
    """How the dataset is called on Kaggle."""

    owner: str = Field(description="Name of the user or organisation, as in the address of its page")
    slug: str = Field(description="Name of the dataset in its address: 6 to 50 small letters, digits and hyphens")
    title: str = Field(description="Title of the dataset: 6 to 50 characters")
    licence: str = Field(default="CC0-1.0", description="Licence, by the name that Kaggle gives it")

    @field_validator("owner")
    @classmethod
    def _owner(cls, owner: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,48}[A-Za-z0-9])?", owner):
            raise expected("the name in kaggle.com/NAME: letters, digits, hyphens")
        return owner

    @field_validator("slug")
    @classmethod
    def _slug(cls, slug: str) -> str:
        low, high = _LENGTHS
        if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", slug) or not low <= len(slug) <= high:
            raise expected(
                f"{low} to {high} of a-z, 0-9 and hyphens inside (it has {len(slug)} characters)",
                f"for example --slug {_as_slug(slug)}",
            )
        return slug

    @field_validator("title")
    @classmethod
    def _title(cls, title: str) -> str:
        low, high = _LENGTHS
        if title != title.strip() or not title.isprintable() or not low <= len(title) <= high:
            raise expected(f"{low} to {high} printable characters (it has {len(title)})")
        return title

    @field_validator("licence")
    @classmethod
    def _licence(cls, licence: str) -> str:
        if licence not in LICENCES:
            raise expected("a licence that Kaggle knows by name", f"choose one of {', '.join(LICENCES)}")
        return licence


def _as_slug(text: str) -> str:
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: _LENGTHS[1]].strip("-")
    return cleaned if len(cleaned) >= _LENGTHS[0] else "my-bfrb-blend"


def pack(folder: Folder, output: Output, config: PackConfig) -> Folder:
    """Copy a model or blend and put beside it what an upload and a notebook need.

    Parameters
    ----------
    folder
        A model or blend; a packed one will do.
    output
        The folder to write, opened by `outputs.open_output`.
    config
        How the dataset is called.

    Returns
    -------
    The packed folder: of the same kind, content and digest as `folder`.

    Raises
    ------
    ArtefactError
        When a file of the model does not match its manifest.
    UsageError
        When this bfrbctl is neither installed nor run from a checkout, so that there is no wheel to make.
    """
    wheel_name, wheel = build_wheel()
    for name in folder.files:
        if not output.has(name):
            output.publish(name, {name: folder.read(name)})
    submission = _submission(folder, config, wheel_name, wheel)
    beside = {
        wheel_name: wheel,
        SUBMISSION: submission.encode(),
        README: _readme(folder, config, wheel_name).encode(),
    }
    content = {
        "kind": "pack",
        "artefact": folder.sha256,
        "bfrbctl": __version__,
        "files": {name: vars(_entry(content)) for name, content in sorted(beside.items())},
    }
    output.publish("pack", {**beside, METADATA: _metadata(config), PACK: encode_json(sealed(content))})
    return output.finish_copy(read_regular(folder.path / MANIFEST, limit=MAX_JSON_BYTES))


def _entry(content: bytes) -> FileEntry:
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())


def _metadata(config: PackConfig) -> bytes:
    return encode_json(
        {"title": config.title, "id": f"{config.owner}/{config.slug}", "licenses": [{"name": config.licence}]}
    )


# ------------------------------------------------------------------------------------------------------------ texts


def _submission(folder: Folder, config: PackConfig, wheel_name: str, wheel: bytes) -> str:
    values = {
        "TITLE": config.title,
        "SLUG": config.slug,
        "WHEEL_NAME": wheel_name,
        "WHEEL_DIGEST": _entry(wheel).sha256,
        "MODEL_DIGEST": folder.sha256,
        "VERSION": __version__,
    }
    return _filled(_SUBMISSION_TEXT, values)


def _readme(folder: Folder, config: PackConfig, wheel_name: str) -> str:
    content: Mapping[str, Any] = folder.content
    members = ", ".join(content["members"]) if folder.kind == "blend" else content["model"]
    score, targets = content.get("score"), content["targets"]
    if isinstance(score, float) and not has_two_sides(targets):  # earlier versions keep another figure there
        scenarios = folder.read_json(METRICS)["scenarios"]
        score = oof.mean_score([headline(scenarios[scenario], targets) for scenario in SCENARIOS])
    values = {
        "TITLE": config.title,
        "SLUG": config.slug,
        "ID": f"{config.owner}/{config.slug}",
        "KIND": folder.kind,
        "MEMBERS": members,
        "N_CLASSES": str(len(content["classes"])),
        "SCORE_NAME": score_name(targets),
        "SCORE": f"{score:.4f}" if isinstance(score, float) else "not known",
        "WHEEL_NAME": wheel_name,
        "MODEL_DIGEST": folder.sha256,
        "VERSION": __version__,
    }
    return _filled(_README_TEXT, values)


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Put values for their names in angle brackets; values may come from strangers and are not substituted again."""
    return re.sub(r"<<([A-Z_]+)>>", lambda match: values[match[1]], text)


_SUBMISSION_TEXT = """# <<TITLE>>
#
# Serves the competition's gateway with the model beside this file. In a notebook that has the competition and this
# dataset as inputs, internet off:
#
#     %run /kaggle/input/<<SLUG>>/submission.py
#
# Installs bfrbctl from the wheel beside this file, offline; both wheel and model must have the digests below. In the
# competition's rerun it serves until the gateway is done; elsewhere it runs the local gateway over test.csv, which
# writes submission.parquet. The competition's folder may be given: submission.py FOLDER.

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHEEL = "<<WHEEL_NAME>>"
WHEEL_SHA256 = "<<WHEEL_DIGEST>>"
MODEL_SHA256 = "<<MODEL_DIGEST>>"
COMPETITION = "cmi-detect-behavior-with-sensor-data"
PLACES = [Path("/kaggle/input", COMPETITION), Path("/kaggle/input/competitions", COMPETITION)]


def install() -> None:
    found = hashlib.sha256((HERE / WHEEL).read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{HERE / WHEEL}: has the digest {found}, expected {WHEEL_SHA256}")
    options = ["--quiet", "--no-index", "--no-deps", "--force-reinstall"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(HERE / WHEEL)], check=True)
    importlib.invalidate_caches()


def main(places: list[Path]) -> None:
    install()
    data = next((place for place in places if place.is_dir()), None)
    if data is not None and (data / "kaggle_evaluation").is_dir():
        sys.path.append(str(data))
    rerun = bool(os.getenv("KAGGLE_IS_COMPETITION_RERUN"))
    if data is None and not rerun:
        raise SystemExit(f"none of {', '.join(map(str, places))} is a folder: add the competition as an input")
    tables = () if data is None else (data / "test.csv", data / "test_demographics.csv")
    importlib.import_module("bfrbctl.prediction.gateway").serve(HERE, tables, expect_sha256=MODEL_SHA256)


if __name__ == "__main__":
    main([Path(sys.argv[1])] if len(sys.argv) == 2 else PLACES)
"""

_README_TEXT = """# <<TITLE>>

A <<KIND>> of bfrbctl <<VERSION>> that recognises <<N_CLASSES>> gestures, packed for Kaggle.

| | |
|---|---|
| dataset | `<<ID>>` |
| members | <<MEMBERS>> |
| out-of-fold <<SCORE_NAME>> | <<SCORE>> |
| digest | `<<MODEL_DIGEST>>` |

In a notebook of the competition, with internet off and this dataset as an input, one line serves the gateway:

    %run /kaggle/input/<<SLUG>>/submission.py

It installs `<<WHEEL_NAME>>` offline and opens the model only if both have the digests that `submission.py` lists. In
Python, where bfrbctl is installed:

    from bfrbctl import Predictor

    Predictor.open("/kaggle/input/<<SLUG>>").predict(sequence, demographics)

There is no pickle here: JSON, Parquet, npz without pickled objects, and LightGBM's text, all listed with their sha256
in `manifest.json` (the model) and `pack.json` (the rest).
"""
