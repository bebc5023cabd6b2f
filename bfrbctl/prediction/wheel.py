"""The wheel of the bfrbctl that is running, made without pip or a build tool; the same modules give the same bytes."""

import base64
import hashlib
import io
import re
import tomllib
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from bfrbctl import __version__
from bfrbctl.errors import UsageError

_PACKAGE = Path(__file__).parent.parent
_CHARTS = re.compile(r"resvg[-_]py\b")
"""Only `inspect --plot FILE.png` needs it: a serving process does without."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can hold: a wheel's bytes must not depend on when it was made."""


def build_wheel() -> tuple[str, bytes]:
    """Make the wheel of the bfrbctl that is running.

    Returns
    -------
    Its file name and its bytes: the modules as they lie here, with metadata from the checkout's pyproject.toml or from
    the installed package. Nothing in it depends on when or where it was made.

    Raises
    ------
    UsageError
        When there is neither a checkout nor an installed package to read the metadata from.
    """
    files = {
        f"bfrbctl/{path.relative_to(_PACKAGE).as_posix()}": path.read_bytes()
        for path in _PACKAGE.rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    info = f"bfrbctl-{__version__}.dist-info"
    about, licence = _about()
    files[f"{info}/METADATA"] = about
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: bfrbctl ({__version__})\nRoot-Is-Purelib: true\nTag: py3-none-any\n".encode()
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nbfrbctl = bfrbctl.cli:main\n"
    files[f"{info}/licenses/LICENSE"] = licence
    names = sorted(files, key=lambda name: (name.startswith(info), name))
    record = [f"{name},sha256={_base64_sha256(files[name])},{len(files[name])}" for name in names]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in [*names, f"{info}/RECORD"]:
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is made
            archive.writestr(member, files[name])
    return f"bfrbctl-{__version__}-py3-none-any.whl", buffer.getvalue()


def _base64_sha256(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _about() -> tuple[bytes, bytes]:
    """Give the wheel's METADATA and the text of its licence; the same from a checkout and from an installed package."""
    checkout = _PACKAGE.parent / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "bfrbctl":
            fields = _fields(project["description"], project["requires-python"], project["dependencies"])
            return fields, (_PACKAGE.parent / "LICENSE").read_bytes()
    try:
        installed = distribution("bfrbctl")
    except PackageNotFoundError as error:
        raise UsageError(
            "bfrbctl is neither installed nor run from a checkout, so its wheel cannot be made",
            hint="install it with pip",
        ) from error
    metadata = installed.metadata
    needed = [line for line in installed.requires or () if "extra ==" not in line]
    return _fields(metadata["Summary"], metadata["Requires-Python"], needed), _licence(installed)


def _fields(summary: str, python: str, needed: Sequence[str]) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        "Name: bfrbctl",
        f"Version: {__version__}",
        f"Summary: {summary}",
        "License: MIT",
        "License-File: LICENSE",
        f"Requires-Python: {','.join(sorted(part.strip() for part in python.split(',')))}",
        *(f"Requires-Dist: {requirement.replace(' ', '')}" for requirement in needed if not _CHARTS.match(requirement)),
    ]
    return ("\n".join(lines) + "\n").encode()


def _licence(installed: Distribution) -> bytes:
    found = [path for path in installed.files or () if path.name == "LICENSE" and ".dist-info" in str(path.parent)]
    if not found:
        raise UsageError(
            "the installed bfrbctl has lost its licence, so its wheel cannot be made", hint="install it again"
        )
    return Path(str(installed.locate_file(found[0]))).read_bytes()
