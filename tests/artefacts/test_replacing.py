"""What --force replaces and what an error leaves: folders of the same kind alone, and nothing that was finished."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.files import Content, temporary_path
from bfrbctl.artefacts.folders import JOURNAL, LOCK, MANIFEST, open_folder
from bfrbctl.artefacts.outputs import Job, Output, open_output
from bfrbctl.errors import ArtefactError, BfrbError, DataError, OutputError, UsageError
from bfrbctl.execution.executor import Executor
from bfrbctl.inspection.report import check_outside, write_report
from tests.contents import CONTENT
from tests.raw_recordings import raw_frames, write_raw
from tests.recordings.test_preparation import prepared

MODEL = Job("model", {"model": "lgbm"}, command=("bfrbctl", "train", "lgbm", "features", "out"))
BLEND = Job("blend", {})


def make(path: Path, job: Job = MODEL, content: bytes = b"old", **options: bool) -> None:
    with open_output(path, job, **options) as output:
        output.publish("one", {"a.txt": content})
        output.finish(CONTENT[job.kind])


def stopped(path: Path, error: BaseException, *, force: bool = False, work: Callable[[Output], None]) -> None:
    with pytest.raises(type(error)), open_output(path, MODEL, force=force) as output:
        work(output)
        raise error


def one_piece(output: Output) -> None:
    output.publish("one", {"a.txt": b"new"})


def nothing(_: Output) -> None:
    pass


def checkpoint(output: Output) -> None:
    with output.scratch("fold-0") as scratch:
        (scratch / "state.npz").write_bytes(b"checkpoint")
        raise DataError("a fold fails")


def interrupted_scratch(output: Output) -> None:
    with output.scratch("fold-0"):
        raise KeyboardInterrupt


def empty_scratch(output: Output) -> None:
    with output.scratch("fold-0"):
        raise UsageError("an option that the library refuses")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("options", [{"force": True}, {"resume": True}, {}])
def test_a_folder_of_another_kind_is_neither_replaced_nor_offered(
    tmp_path: Path, finished: bool, options: dict[str, bool]
) -> None:
    out = tmp_path / "lgbm"
    if finished:
        make(out)
    else:
        stopped(out, KeyboardInterrupt(), work=one_piece)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        OutputError, match="holds a lgbm model folder, and this command writes a blend folder"
    ) as caught:
        make(out, BLEND, **options)
    assert "--force" not in str(caught.value.hint)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_trees_are_replaced_by_trees_of_other_settings_and_not_by_a_network(tmp_path: Path) -> None:
    make(tmp_path / "m")
    with pytest.raises(OutputError, match="holds a lgbm model folder, and this command writes a keras model folder"):
        make(tmp_path / "m", replace(MODEL, config={"model": "keras"}), b"new", force=True)
    assert open_folder(tmp_path / "m").read("a.txt") == b"old"
    make(tmp_path / "m", replace(MODEL, config={"model": "lgbm", "seeds": 3}), b"new", force=True)
    assert open_folder(tmp_path / "m").read("a.txt") == b"new"


def test_a_packed_model_is_no_model_to_replace(blend_folder, tmp_path: Path) -> None:
    from bfrbctl.prediction.packing import PackConfig, pack

    job = Job("pack", {})
    for force in (False, True):
        with open_output(tmp_path / "up", job, force=force) as output:
            pack(blend_folder, output, PackConfig(owner="jane", slug="tiny-blend", title="Tiny blend"))
    with pytest.raises(OutputError, match="holds a pack folder"):
        make(tmp_path / "up", BLEND, force=True)


@pytest.mark.parametrize("error", [UsageError("x"), DataError("x"), BfrbError("x"), RuntimeError("x")])
def test_an_error_of_any_type_keeps_what_was_finished(tmp_path: Path, error: Exception) -> None:
    stopped(tmp_path / "m", error, work=one_piece)
    with open_output(tmp_path / "m", MODEL, resume=True) as output:
        assert output.has("one")


def test_an_error_keeps_checkpoints(tmp_path: Path) -> None:
    stopped(tmp_path / "m", DataError("x"), work=checkpoint)
    with (
        open_output(tmp_path / "m", MODEL, resume=True) as output,
        output.scratch("fold-0", checkpoints=True) as scratch,
    ):
        assert (scratch / "state.npz").read_bytes() == b"checkpoint"


@pytest.mark.parametrize("work", [nothing, empty_scratch])
@pytest.mark.parametrize("error", [UsageError("x"), DataError("x"), RuntimeError("x")])
def test_an_error_before_anything_is_done_leaves_nothing(tmp_path: Path, work, error: Exception) -> None:
    stopped(tmp_path / "m", error if work is nothing else UsageError("x"), work=work)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("work", [nothing, empty_scratch, interrupted_scratch, checkpoint])
@pytest.mark.parametrize("error", [UsageError("x"), RuntimeError("x"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_piece_replaces_nothing(tmp_path: Path, work, error: BaseException) -> None:
    make(tmp_path / "m")
    of_work = {empty_scratch: UsageError("x"), checkpoint: DataError("x"), interrupted_scratch: KeyboardInterrupt()}
    stopped(tmp_path / "m", of_work.get(work, error), force=True, work=work)
    assert open_folder(tmp_path / "m").read("a.txt") == b"old"
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["a.txt", MANIFEST]


def test_an_unfinished_run_is_kept_until_the_one_that_replaces_it_has_a_piece(tmp_path: Path) -> None:
    stopped(tmp_path / "m", KeyboardInterrupt(), work=one_piece)
    stopped(tmp_path / "m", RuntimeError("x"), force=True, work=nothing)
    with open_output(tmp_path / "m", MODEL, resume=True) as output:
        assert output.has("one")


def names(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def test_checkpoints_of_an_unfinished_run_are_kept_until_the_one_that_replaces_it_begins(tmp_path: Path) -> None:
    stopped(tmp_path / "m", DataError("x"), work=checkpoint)
    before = names(tmp_path / "m")
    for work, error in ((interrupted_scratch, KeyboardInterrupt()), (checkpoint, DataError("x"))):
        stopped(tmp_path / "m", error, force=True, work=work)
        assert names(tmp_path / "m") == before
    with open_output(tmp_path / "m", MODEL, force=True) as output:
        with output.scratch("fold-0", checkpoints=True) as scratch:
            assert list(scratch.iterdir()) == []
            output.begin()
            assert [path.name for path in output.path.glob("part-scratch-*")] == ["part-scratch-fold-0"]
        one_piece(output)
        output.finish(CONTENT["model"])


def test_checkpoints_survive_a_kill_of_the_run_that_is_to_replace_them(tmp_path: Path) -> None:
    stopped(tmp_path / "m", DataError("x"), work=checkpoint)
    with open_output(tmp_path / "m", MODEL, force=True) as output, output.scratch("fold-0") as scratch:
        (scratch / "state.npz").write_bytes(b"of the new run")
        shutil.copytree(output.path, tmp_path / "killed")
        one_piece(output)
    with (
        open_output(tmp_path / "killed", MODEL, resume=True) as output,
        output.scratch("fold-0", checkpoints=True) as scratch,
    ):
        assert (scratch / "state.npz").read_bytes() == b"checkpoint"


@pytest.mark.parametrize("error", [OutputError("the disk is full"), KeyboardInterrupt()])
def test_a_run_that_cannot_note_that_it_begins_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    make(tmp_path / "m")

    def fail(*_: object) -> None:
        raise error

    with (
        pytest.raises(type(error)),
        open_output(tmp_path / "m", MODEL, force=True) as output,
        output.scratch("fold-0") as scratch,
    ):
        (scratch / "progress.jsonl").write_text("{}")
        monkeypatch.setattr("bfrbctl.artefacts.outputs.write_bytes", fail)
        output.begin()
    assert names(tmp_path / "m") == ["a.txt", MANIFEST]
    assert open_folder(tmp_path / "m").read("a.txt") == b"old"


def test_files_that_workers_were_writing_do_not_stay_in_a_folder_that_was_only_to_be_replaced(tmp_path: Path) -> None:
    make(tmp_path / "m")
    stopped(tmp_path / "m", DataError("x"), force=True, work=lambda output: half_written(output.path))
    assert names(tmp_path / "m") == ["a.txt", MANIFEST]


def half_written(path: Path) -> None:
    temporary_path(path / "b.parquet").write_bytes(b"half")


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"append": True}])
def test_a_refused_run_leaves_readable_what_a_killed_one_was_to_replace(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    make(tmp_path / "m")
    (tmp_path / "m" / LOCK).write_text("1\n")
    (tmp_path / "m" / "part-scratch-fold-0").mkdir()
    half_written(tmp_path / "m")
    open_folder(tmp_path / "m")
    with pytest.raises((OutputError, ArtefactError)):
        make(tmp_path / "m", BLEND if options.get("append") else MODEL, **options)
    assert names(tmp_path / "m") == ["a.txt", MANIFEST]
    assert open_folder(tmp_path / "m").read("a.txt") == b"old"


def test_nothing_is_cleared_up_in_a_foreign_folder(tmp_path: Path) -> None:
    half_written(tmp_path)
    (tmp_path / MANIFEST).write_text('{"name": "a web page"}')
    (tmp_path / "part-scratch-fold-0").mkdir()
    before = names(tmp_path)
    with pytest.raises(OutputError):
        make(tmp_path)
    assert names(tmp_path) == before


def test_a_file_of_progress_without_a_row_is_no_reason_to_keep_a_failed_run(tmp_path: Path) -> None:
    def no_row(output: Output) -> None:
        with output.scratch("fold-0", checkpoints=True) as scratch:
            (scratch / "progress.jsonl").touch()
            raise UsageError("a setting that the library refuses")

    stopped(tmp_path / "m", UsageError("x"), work=no_row)
    assert not (tmp_path / "m").exists()


def test_force_and_resume_exclude_each_other(tmp_path: Path) -> None:
    stopped(tmp_path / "m", KeyboardInterrupt(), work=one_piece)
    before = names(tmp_path / "m")
    with pytest.raises(UsageError, match="--force and --resume exclude each other"):
        make(tmp_path / "m", force=True, resume=True)
    assert names(tmp_path / "m") == before


def test_the_old_folder_can_be_read_while_the_new_one_trains_its_first_round(tmp_path: Path) -> None:
    make(tmp_path / "m")
    with open_output(tmp_path / "m", MODEL, force=True) as output, output.scratch("fold-0"):
        assert open_folder(tmp_path / "m").read("a.txt") == b"old"
        output.begin()
        with pytest.raises(ArtefactError, match="unfinished"):
            open_folder(tmp_path / "m")


def test_a_replacing_run_that_was_begun_can_be_resumed(tmp_path: Path) -> None:
    make(tmp_path / "m")
    stopped(tmp_path / "m", KeyboardInterrupt(), force=True, work=one_piece)
    with open_output(tmp_path / "m", MODEL, resume=True) as output:
        assert output.has("one")
        assert output.finish(CONTENT["model"]).read("a.txt") == b"new"


def test_recordings_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    frames = raw_frames(subjects=4)
    raw = write_raw(tmp_path / "raw", frames)
    with pytest.raises(UsageError, match="no sequence of that name"):
        prepared(raw, tmp_path / "data", drop=("NONE",), rows_per_file=100)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("n", [1, 2])
def test_a_bad_row_behind_finished_files_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """Alone by a block of rows, with workers by a file of its own: what came before it was published in any case."""
    monkeypatch.setattr("bfrbctl.recordings.raw.CHUNK_BYTES", 20_000)
    frames = raw_frames(subjects=4)
    last = pl.col("sequence_id") == frames["sequence_id"].max()
    bad = frames.with_columns(acc_y=pl.when(last).then(pl.lit("oops")).otherwise(pl.col("acc_y").cast(pl.String)))
    raw, noted = write_raw(tmp_path / "raw", bad), []
    publish = Output.publish

    def note(output: Output, part: str, files: dict[str, Content]) -> None:
        publish(output, part, files)
        noted.append(part)

    monkeypatch.setattr(Output, "publish", note)
    with pytest.raises(DataError, match="oops"):
        prepared(raw, tmp_path / "data", executor=Executor(n), rows_per_file=100)
    assert noted
    assert not (tmp_path / "data").exists()


def test_recordings_that_could_not_be_read_for_once_leave_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=4))

    def gone(*_: object) -> None:
        raise DataError("train.csv: cannot be read") from OSError("stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("bfrbctl.recordings.preparation._refuse_faults", gone)
        with pytest.raises(DataError):
            prepared(raw, tmp_path / "data", rows_per_file=100)
    assert (tmp_path / "data" / JOURNAL).exists()
    prepared(raw, tmp_path / "data", rows_per_file=100, resume=True)


def test_a_picture_or_page_goes_into_no_folder_of_ours(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(UsageError, match="lies in a lgbm model folder"):
        check_outside(tmp_path / "b" / "x.svg", tmp_path / "a")
    open_folder(tmp_path / "b")


def test_a_page_replaces_nothing_but_a_page(blend_folder, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_bytes(b"PK\x03\x04 my thesis")
    with pytest.raises(OutputError, match="is no HTML page"):
        write_report(blend_folder.path, tmp_path / "thesis.html", force=True)
    assert (tmp_path / "thesis.html").read_bytes() == b"PK\x03\x04 my thesis"
