import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.files import encode_json, parse_json
from bfrbctl.artefacts.folders import JOURNAL, LOCK, MANIFEST, Folder, open_folder
from bfrbctl.artefacts.outputs import Job, Output, open_output
from bfrbctl.errors import ArtefactError, OutputError
from tests.contents import CONTENT

JOB = Job("dataset", {"rate_hz": 10.0}, seed=1)


def make(path: Path, job: Job = JOB, **options: bool) -> Output:
    with open_output(path, job, **options) as output:
        if not output.has("one"):
            output.publish("one", {"a.txt": b"first", "part-a.txt": b"gone at the end"})
        output.publish("two", {"b.parquet": pl.DataFrame({"x": [1]})})
        output.finish(CONTENT[job.kind])
    return output


def change_manifest(path: Path, **changes: object) -> None:
    manifest = parse_json((path / MANIFEST).read_bytes(), "manifest")
    (path / MANIFEST).write_bytes(encode_json({**manifest, **changes}))


def test_a_finished_folder_holds_what_its_manifest_lists(tmp_path: Path) -> None:
    make(tmp_path / "out")
    folder = open_folder(tmp_path / "out", "dataset")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.txt", "b.parquet", MANIFEST]
    assert folder.read("a.txt") == b"first"
    assert folder.read_parquet("b.parquet")["x"].to_list() == [1]


def test_the_digest_does_not_depend_on_the_command(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b", Job("dataset", {"rate_hz": 10.0}, command=("bfrbctl", "other"), seed=1))
    make(tmp_path / "c", Job("dataset", {"rate_hz": 20.0}, seed=1))
    digests = [open_folder(tmp_path / name).sha256 for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_an_existing_output_is_refused_without_force(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(OutputError, match="exists already"):
        make(tmp_path / "out")
    make(tmp_path / "out", force=True)


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    for options in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(OutputError, match="not a folder of ours"):
            make(tmp_path / "out", **options)
    assert (tmp_path / "out" / "thesis.doc").read_text() == "mine"


def test_a_foreign_file_is_never_removed(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"files in it that are not ours \(thesis\.doc\)"):
        make(tmp_path / "out", force=True)
    assert open_folder_without(tmp_path / "out", "thesis.doc").read("a.txt") == b"first"
    interrupted(tmp_path / "half")
    (tmp_path / "half" / "notes.doc").write_text("mine")
    for options in ({"force": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"notes\.doc"):
            make(tmp_path / "half", **options)
    assert (tmp_path / "half" / "notes.doc").read_text() == "mine"


def open_folder_without(path: Path, name: str) -> Folder:
    (path / name).unlink()
    return open_folder(path)


def test_force_replaces_a_folder_whose_manifest_is_damaged(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / MANIFEST).write_bytes(b"{")
    make(tmp_path / "out", force=True)
    assert open_folder(tmp_path / "out").read("a.txt") == b"first"


def test_damage_to_a_manifest_or_journal_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "out")
    text = (tmp_path / "out" / MANIFEST).read_text()
    (tmp_path / "out" / MANIFEST).write_text(text.replace('"rate_hz": 10.0', '"rate_hz": 11.0'))
    with pytest.raises(ArtefactError, match="seal differs"):
        open_folder(tmp_path / "out")
    interrupted(tmp_path / "half")
    text = (tmp_path / "half" / JOURNAL).read_text()
    (tmp_path / "half" / JOURNAL).write_text(text.replace("a.txt", "b.txt"))
    with pytest.raises(OutputError, match="seal differs"):
        make(tmp_path / "half", resume=True)


def interrupted(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_output(path, JOB) as output:
        output.publish("one", {"a.txt": b"first", "part-a.txt": b"gone at the end"})
        raise KeyboardInterrupt


def test_resume_reuses_what_was_finished(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with pytest.raises(OutputError, match="--resume"):
        make(tmp_path / "out")
    assert make(tmp_path / "out", resume=True).reused == ["one"]
    make(tmp_path / "fresh")
    assert open_folder(tmp_path / "out").sha256 == open_folder(tmp_path / "fresh").sha256


def test_resume_makes_a_damaged_piece_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_bytes(b"torn!")
    assert make(tmp_path / "out", resume=True).reused == []
    assert open_folder(tmp_path / "out").read("a.txt") == b"first"


def test_resume_with_other_settings_is_refused_and_names_them(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    with pytest.raises(OutputError, match=r"differs in rate_hz \(10.0 then, 20.0 now\)"):
        make(tmp_path / "out", Job("dataset", {"rate_hz": 20.0}, seed=1), resume=True)


def test_leftovers_of_a_killed_write_are_swept_away(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    (tmp_path / "out" / ".tmp-a.txt").write_text("half")
    (tmp_path / "out" / "part-scratch-x").mkdir()
    make(tmp_path / "out", force=True)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.txt", "b.parquet", MANIFEST]


def test_a_scratch_folder_begins_empty_but_for_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_output(tmp_path / "out", JOB) as output:
        for part in ("gathered", "fold-0"):
            folder = output.path / f"part-scratch-{part}"
            folder.mkdir()
            (folder / "stale").write_text("of an earlier run")
            (folder / ".tmp-0-stale").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(ArtefactError, match="unfinished"):
        open_folder(tmp_path / "out")
    with open_output(tmp_path / "out", JOB, resume=True) as output:
        with output.scratch("gathered") as folder:
            assert list(folder.iterdir()) == []
        with output.scratch("fold-0", checkpoints=True) as folder:
            assert [entry.name for entry in folder.iterdir()] == ["stale"]


@pytest.mark.parametrize("writer", [JOURNAL, LOCK])
def test_scratch_folders_are_taken_for_what_they_are_beside_a_journal_or_a_lock_alone(
    tmp_path: Path, writer: str
) -> None:
    folder = open_folder(make(tmp_path / "out").path)
    scratch = folder.path / "part-scratch-gathered"
    scratch.mkdir()
    (scratch / "x").write_text("anything")
    with pytest.raises(ArtefactError, match="part-scratch-gathered: is not a plain file"):
        open_folder(folder.path)
    (folder.path / writer).write_text("{}")
    assert open_folder(folder.path).files == folder.files
    (folder.path / "part-scratch-link").symlink_to(tmp_path)
    with pytest.raises(ArtefactError, match="part-scratch-link: is not a plain file"):
        open_folder(folder.path)


def test_a_second_writer_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from bfrbctl.artefacts.outputs import Job, open_output\n"
        "with open_output(pathlib.Path(sys.argv[1]), Job('dataset', {})):\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(OutputError, match=f"process {other.pid} is writing"):
            make(tmp_path / "out", force=True)
        other.kill()
        other.stdin.close()
        other.wait()
        make(tmp_path / "out", force=True)
    assert not (tmp_path / "out" / LOCK).exists()


def test_an_unfinished_folder_cannot_be_opened(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    assert (tmp_path / "out" / JOURNAL).exists()
    with pytest.raises(ArtefactError, match="unfinished"):
        open_folder(tmp_path / "out")


@pytest.mark.parametrize("name", ["model.pkl", "note.txt", ".hidden"])
def test_an_unlisted_file_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / name).write_text("x")
    with pytest.raises(ArtefactError, match="does not list"):
        open_folder(tmp_path / "out")


def test_a_symlink_or_sub_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "a.txt").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "a.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="not a plain file"):
        open_folder(tmp_path / "out")
    (tmp_path / "out" / "a.txt").unlink()
    (tmp_path / "out" / "a.txt").mkdir()
    with pytest.raises(ArtefactError, match="not a plain file"):
        open_folder(tmp_path / "out")


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_bytes(b"other")
    with pytest.raises(ArtefactError, match="sha256 differs"):
        open_folder(tmp_path / "out").read("a.txt")
    (tmp_path / "out" / "a.txt").write_bytes(b"longer than before")
    with pytest.raises(ArtefactError, match="has 18 bytes"):
        open_folder(tmp_path / "out")
    os.unlink(tmp_path / "out" / "a.txt")
    with pytest.raises(ArtefactError, match=r"lacks a\.txt"):
        open_folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": 3}, "'kind' is missing"),
        ({"schema_version": 99}, "schema version 99"),
        ({"files": {"../evil": {"size": 1, "sha256": "x"}}}, "no file name of ours"),
        ({"files": {"a.txt": {"size": True, "sha256": "x"}}}, "no size and sha256"),
        ({"files": []}, "'files' is missing"),
        ({"inputs": None}, "'inputs' is missing"),
    ],
)
def test_a_strange_manifest_is_refused(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    make(tmp_path / "out")
    change_manifest(tmp_path / "out", **changes)
    with pytest.raises(ArtefactError, match=match):
        open_folder(tmp_path / "out")


def test_the_wrong_kind_is_named(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(ArtefactError, match="is a dataset folder, expected model or blend"):
        open_folder(tmp_path / "out", "model", "blend")


def test_a_path_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is no such folder"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="is not a folder"):
        open_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be made a folder"):
        make(tmp_path / "file")


def test_the_manifest_tells_versions_and_command(tmp_path: Path) -> None:
    make(tmp_path / "out", Job("dataset", {}, command=("bfrbctl", "prepare"), seed=7))
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["command"] == ["bfrbctl", "prepare"]
    assert manifest["seed"] == 7
    assert {"numpy", "polars", "lightgbm", "keras"} <= set(manifest["libraries"])
