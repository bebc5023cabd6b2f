import base64
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import bfrbctl
from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import MANIFEST, METADATA, PACK, Folder, open_folder, sealed
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.cli import main
from bfrbctl.errors import ArtefactError, UsageError
from bfrbctl.prediction import packing, wheel
from bfrbctl.prediction.packing import LICENCES, PackConfig
from bfrbctl.prediction.predictor import Predictor
from tests import toy_model

CONFIG = PackConfig(owner="jane", slug="my-bfrb-blend", title="My BFRB blend")


def pack(folder: Folder, path: Path, config: PackConfig = CONFIG) -> Folder:
    with open_output(path, Job("pack", vars(config), (folder.ref(),))) as output:
        return packing.pack(folder, output, config)


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


@pytest.fixture
def packed(blend_folder: Folder, tmp_path: Path) -> Path:
    return pack(blend_folder, tmp_path / "upload").path


# ------------------------------------------------------------------------------------------------- what is in it


def test_a_packed_blend_is_the_blend_it_was(blend_folder: Folder, packed: Path, raw_folder: Path) -> None:
    paths = (raw_folder / "test.csv", raw_folder / "test_demographics.csv")
    tables = [pl.read_csv(path) for path in paths]
    opened = Predictor.open(packed, expect_sha256=blend_folder.sha256)
    assert opened.predict_many(*tables) == Predictor.open(blend_folder.path).predict_many(*tables)
    assert open_folder(packed).manifest == blend_folder.manifest


def test_it_is_flat_and_has_what_a_notebook_needs(blend_folder: Folder, packed: Path) -> None:
    assert all(entry.is_file() for entry in packed.iterdir())
    beside = {"submission.py", "README.md", f"bfrbctl-{bfrbctl.__version__}-py3-none-any.whl"}
    assert set(contents(packed)) == {*blend_folder.files, MANIFEST, METADATA, PACK, *beside}
    assert set(json.loads((packed / PACK).read_text())["files"]) == beside
    text = (packed / "submission.py").read_text()
    compile(text, "submission.py", "exec")
    assert f'MODEL_SHA256 = "{blend_folder.sha256}"' in text
    assert "<<" not in text + (packed / "README.md").read_text()


def test_the_metadata_is_what_kaggle_asks_for(packed: Path) -> None:
    assert json.loads((packed / METADATA).read_text()) == {
        "title": "My BFRB blend",
        "id": "jane/my-bfrb-blend",
        "licenses": [{"name": "CC0-1.0"}],
    }


def test_the_same_model_gives_the_same_bytes_packed_once_or_twice(
    blend_folder: Folder, packed: Path, tmp_path: Path
) -> None:
    assert contents(pack(blend_folder, tmp_path / "again").path) == contents(packed)
    assert contents(pack(open_folder(packed), tmp_path / "repacked").path) == contents(packed)


def test_one_model_is_packed_as_well_as_a_blend(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    folder = pack(model_folders[0], tmp_path / "upload")
    assert Predictor.open(folder.path).classes == tuple(model_folders[0].content["classes"])
    assert "A model of bfrbctl" in (folder.path / "README.md").read_text()


def test_the_wheel_holds_all_modules_with_true_digests(packed: Path) -> None:
    name, content = wheel.build_wheel()
    assert (packed / name).read_bytes() == content
    package = Path(bfrbctl.__file__).parent
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    for path in package.rglob("*.py"):
        assert files[f"bfrbctl/{path.relative_to(package)}"] == path.read_bytes()
    info = f"bfrbctl-{bfrbctl.__version__}.dist-info"
    record = dict(line.rsplit(",", 2)[:2] for line in files[f"{info}/RECORD"].decode().splitlines())
    assert set(record) == set(files)
    for member, digest in record.items():
        true = base64.urlsafe_b64encode(hashlib.sha256(files[member]).digest()).decode().rstrip("=")
        assert digest == ("" if member.endswith("RECORD") else f"sha256={true}")
    assert b"MIT License" in files[f"{info}/licenses/LICENSE"]
    assert b"Requires-Dist: polars>=" in files[f"{info}/METADATA"]


def test_without_checkout_or_installed_package_there_is_no_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nothing(name: str) -> None:
        raise wheel.PackageNotFoundError(name)

    monkeypatch.setattr(wheel, "_PACKAGE", tmp_path / "bfrbctl")
    monkeypatch.setattr(wheel, "distribution", nothing)
    with pytest.raises(UsageError, match="neither installed nor run from a checkout"):
        wheel.build_wheel()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"owner": "jane doe"}, "owner is 'jane doe'"),
        ({"owner": ""}, "owner is ''"),
        ({"slug": "short"}, "has 5 characters"),
        ({"slug": "x" * 51}, "has 51 characters"),
        ({"slug": "My_Blend"}, "--slug my-blend"),
        ({"slug": "-my-blend"}, "slug is '-my-blend'"),
        ({"title": "short"}, "has 5"),
        ({"title": "x" * 51}, "has 51"),
        ({"title": "two\nlines"}, "printable"),
        ({"title": " padded "}, "title is ' padded '"),
        ({"licence": "MIT"}, "choose one of CC0-1.0"),
    ],
)
def test_what_kaggle_would_refuse_is_refused_here(change: dict[str, str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        PackConfig(**{**vars(CONFIG), **change})


def test_every_licence_and_the_longest_names_are_fine() -> None:
    for licence in LICENCES:
        assert PackConfig(owner="jane-doe", slug="a" * 50, title="t" * 50, licence=licence).licence == licence


# ----------------------------------------------------------------------------------------------- what is refused


def relist(path: Path, name: str, content: bytes) -> None:
    """Do what an attacker would: put a file there and make the manifest agree with it."""
    (path / name).write_bytes(content)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / MANIFEST).write_bytes(encode_json(sealed(manifest)))


def add(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(b"\x80\x04N.") and None


def spoil(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return change


def link(path: Path) -> None:
    (path / "README.md").rename(path.parent / "elsewhere")
    (path / "README.md").symlink_to(path.parent / "elsewhere")


def swell(path: Path) -> None:
    name = "member-0.fold-0.toy.npz"
    relist(path, name, b"x")
    os.truncate(path / name, 5 << 30)  # sparse: it takes no room on the disk
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][name]["size"] = 5 << 30
    (path / MANIFEST).write_bytes(encode_json(sealed(manifest)))
    (path / PACK).unlink()
    for beside in ("README.md", "submission.py", f"bfrbctl-{bfrbctl.__version__}-py3-none-any.whl"):
        (path / beside).unlink()


def list_beside(path: Path) -> None:
    manifest = json.loads((path / PACK).read_text())
    content = b"import os"
    (path / "sitecustomize.py").write_bytes(content)
    manifest["files"]["sitecustomize.py"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / PACK).write_bytes(encode_json(sealed(manifest)))


UNSAFE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle": (add("model.pkl"), r"does not list \(model\.pkl\)"),
    "a pickle that the manifest lists": (
        lambda path: relist(path, "model.pkl", b"\x80\x04N."),
        r"model\.pkl: is no kind of file",
    ),
    "a pickle in place of weights": (
        lambda path: relist(path, "member-0.fold-0.toy.npz", b"\x80\x04N."),
        r"pack\.json: is of the folder",
    ),
    "an unlisted file": (add("notes.txt"), r"does not list \(notes\.txt\)"),
    "a module that pack.json lists": (list_beside, r"pack\.json: lists sitecustomize\.py"),
    "a symlink": (link, r"README\.md: is not a plain file"),
    "a sub-folder": (lambda path: (path / "more").mkdir(), r"more: is not a plain file"),
    "a changed member": (spoil("member-0.fold-0.toy.npz"), r"toy\.npz: is not the file that the manifest lists"),
    "a changed list": (spoil(PACK), r"pack\.json"),
    "a changed manifest": (spoil(MANIFEST), r"manifest\.json|pack\.json"),
    "a changed wheel": (spoil(f"bfrbctl-{bfrbctl.__version__}-py3-none-any.whl"), r"\.whl: is not the file"),
    "a changed submission": (spoil("submission.py"), r"submission\.py: is not the file"),
    "no submission": (lambda path: (path / "submission.py").unlink(), r"submission\.py: cannot be read"),
    "an absurd size": (swell, r"fold-0\.toy\.npz: has 5368709120 bytes, we read at most"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_folder_is_refused_with_the_name_of_the_file(
    name: str, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    change, match = UNSAFE[name]
    change(packed)
    with pytest.raises(ArtefactError, match=match):
        Predictor.open(packed)
    words = ["predict", str(tmp_path), str(packed), str(tmp_path / "out")]
    code, error = call(words, monkeypatch, capsys)
    assert code == 4
    assert re.search(match, error)


def call(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str]:
    monkeypatch.setattr(sys, "argv", ["bfrbctl", *words])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main()
    signal.signal(signal.SIGTERM, handler)
    return stop.value.code, capsys.readouterr().err


def test_weights_that_are_refused_are_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ArtefactError("the weights hold a pickle")

    monkeypatch.setattr(toy_model, "KIND", replace(toy_model.KIND, load=refuse))
    with pytest.raises(ArtefactError, match=r"upload/member-0\.fold-0\.\*: the weights hold a pickle"):
        Predictor.open(packed)


def test_what_kaggle_keeps_to_itself_may_be_missing(packed: Path) -> None:
    (packed / METADATA).unlink()
    assert Predictor.open(packed).classes


def test_another_digest_than_the_expected_one_is_refused(blend_folder: Folder, packed: Path) -> None:
    assert Predictor.open(packed, expect_sha256=blend_folder.sha256.upper())
    with pytest.raises(ArtefactError, match=f"has the digest {blend_folder.sha256}, expected {'0' * 64}"):
        Predictor.open(packed, expect_sha256="0" * 64)
    with pytest.raises(UsageError, match="expected 64 hexadecimal digits"):
        Predictor.open(packed, expect_sha256=blend_folder.sha256[:12])


def test_submission_refuses_a_wheel_that_is_not_the_packed_one(packed: Path) -> None:
    spoil(f"bfrbctl-{bfrbctl.__version__}-py3-none-any.whl")(packed)
    done = subprocess.run([sys.executable, packed / "submission.py", packed], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(r"\.whl: has the digest [0-9a-f]{64}, expected [0-9a-f]{64}", done.stderr)


# ------------------------------------------------------------------------------------------------- the command line


def test_the_command_packs_and_tells_the_digest(
    blend_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--owner", "jane", "--slug", "my-bfrb-blend", "--title", "My BFRB blend"]
    words = ["bfrbctl", "pack", str(blend_folder.path), str(tmp_path / "upload"), *options]
    monkeypatch.setattr(sys, "argv", [*words, "--licence", "apache-2.0", "--json"])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main()
    shown = json.loads(capsys.readouterr().out)
    assert (stop.value.code, shown["sha256"], shown["id"]) == (0, blend_folder.sha256, "jane/my-bfrb-blend")
    assert json.loads((tmp_path / "upload" / METADATA).read_text())["licenses"] == [{"name": "apache-2.0"}]
    assert call(words[1:], monkeypatch, capsys)[0] == 5
    assert call([*words[1:], "--force", "--licence", "MIT"], monkeypatch, capsys)[0] == 2
    assert call([*words[1:], "--force", "--quiet"], monkeypatch, capsys) == (0, "")
    itself = ["pack", str(tmp_path / "upload"), str(tmp_path / "upload"), *options, "--force"]
    assert call(itself, monkeypatch, capsys)[0] == 2
    assert Predictor.open(tmp_path / "upload").classes
    signal.signal(signal.SIGTERM, handler)


def test_predicting_and_serving_load_nothing_of_the_command_line() -> None:
    script = (
        "import sys; import bfrbctl.prediction.gateway; from bfrbctl.models.interface import KINDS\n"
        "import importlib; [importlib.import_module(module) for module in KINDS.values()]\n"
        "print([name for name in ('typer', 'click', 'bfrbctl.cli') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
