"""What --force replaces and what an error leaves: folders of the same kind alone, and nothing that was finished."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bfrbctl.errors import ArtefactError, BfrbError, DataError, OutputError, UsageError
from bfrbctl.folders import JOURNAL, MANIFEST, open_folder
from bfrbctl.inspection.report import see_outside, write_report
from bfrbctl.outputs import Job, Output, open_output
from tests.recordings import raw_frames, write_raw
from tests.test_preparation import prepared

MODEL = Job("model", {"model": "lgbm"}, command=("bfrbctl", "train", "lgbm", "features", "out"))
BLEND = Job("blend", {})


def make(path: Path, job: Job = MODEL, content: bytes = b"old", **options: bool) -> None:
    with open_output(path, job, **options) as output:
        output.publish("one", {"a.txt": content})
        output.finish({})


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
    from bfrbctl.packing import PackConfig, pack

    job = Job("pack", {})
    for force in (False, True):
        with open_output(tmp_path / "up", job, force=force) as output:
            pack(blend_folder, output, PackConfig("jane", "tiny-blend", "Tiny blend"))
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
        assert output.finish({}).read("a.txt") == b"new"


def test_recordings_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    frames = raw_frames(subjects=4)
    raw = write_raw(tmp_path / "raw", frames)
    with pytest.raises(UsageError, match="no sequence of that name"):
        prepared(raw, tmp_path / "data", drop=("NONE",), rows_per_file=100)
    assert not (tmp_path / "data").exists()


def test_recordings_that_could_not_be_read_for_once_leave_what_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=4))

    def gone(*_: object) -> None:
        raise DataError("train.csv: cannot be read") from OSError("stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("bfrbctl.preparation._refuse_faults", gone)
        with pytest.raises(DataError):
            prepared(raw, tmp_path / "data", rows_per_file=100)
    assert (tmp_path / "data" / JOURNAL).exists()
    prepared(raw, tmp_path / "data", rows_per_file=100, resume=True)


def test_a_picture_or_page_goes_into_no_folder_of_ours(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(UsageError, match="lies in a lgbm model folder"):
        see_outside(tmp_path / "b" / "x.svg", tmp_path / "a")
    open_folder(tmp_path / "b")


def test_a_page_replaces_nothing_but_a_page(blend_folder, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_bytes(b"PK\x03\x04 my thesis")
    with pytest.raises(OutputError, match="is no HTML page"):
        write_report(blend_folder.path, tmp_path / "thesis.html", force=True)
    assert (tmp_path / "thesis.html").read_bytes() == b"PK\x03\x04 my thesis"
