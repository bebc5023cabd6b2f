import io
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.artefacts.files import (
    TEMPORARY,
    check_parquet,
    decode_parquet,
    encode_json,
    file_sha256,
    parquet_bytes,
    parse_json,
    read_regular,
    temporary_path,
    write_bytes,
    write_file,
)
from bfrbctl.errors import ArtefactError, OutputError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_json_survives_a_round_trip(value: object) -> None:
    assert parse_json(encode_json(value), "x.json") == value


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not well-formed"),
        (b'{"a": NaN}', "not well-formed"),
        (b'{"a": 1e999}', "larger than any number"),
        (b'{"a": ' + b"9" * 50 + b"}", "50 digits"),
        (b'{"a": "\\ud800"}', "not well-formed"),
        ('{"a": 1}'.encode("utf-16"), "not well-formed"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b"\xff\xfe", "not well-formed"),
        (b"[" * 100 + b"]" * 100, "nested deeper"),
        (b"[" * 200_000, "not well-formed"),
    ],
)
def test_strange_json_is_refused(content: bytes, match: str) -> None:
    with pytest.raises(ArtefactError, match=match):
        parse_json(content, "x.json")


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a: cannot be written \(No space left"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_an_interrupted_write_leaves_no_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_temporary_names_are_drawn_and_known(tmp_path: Path) -> None:
    drawn = {temporary_path(tmp_path / "a.json") for _ in range(100)}
    assert len(drawn) == 100
    assert {path.parent for path in drawn} == {tmp_path}
    assert all(path.name.startswith(TEMPORARY) and path.name.endswith("-a.json") for path in drawn)
    write_bytes(tmp_path / ("n" * 250), b"a long name")
    assert (tmp_path / ("n" * 250)).read_bytes() == b"a long name"


def test_two_writers_of_a_file_never_publish_each_others_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins, and ends, after the first has written and before it publishes."""
    replace, inside = os.replace, []

    def meanwhile(source: Path, target: Path) -> None:
        if not inside:
            inside.append(source)
            assert write_bytes(tmp_path / "a", b"second").size == 6
            assert (tmp_path / "a").read_bytes() == b"second"
        replace(source, target)

    monkeypatch.setattr(os, "replace", meanwhile)
    entry = write_bytes(tmp_path / "a", b"first")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert entry.sha256 == file_sha256(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_table_and_a_temporary_file_are_published_with_their_digest(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1, 2]})
    entry = write_file(tmp_path / "t.parquet", table)
    assert entry.size == (tmp_path / "t.parquet").stat().st_size
    (tmp_path / ".tmp-u").write_bytes((tmp_path / "t.parquet").read_bytes())
    assert write_file(tmp_path / "u", tmp_path / ".tmp-u") == entry
    assert not (tmp_path / ".tmp-u").exists()


def test_parquet_bytes_are_the_same_every_time() -> None:
    table = pl.DataFrame({"a": list(range(1000)), "b": [f"x{i}" for i in range(1000)]})
    assert parquet_bytes(table) == parquet_bytes(table.clone())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a Parquet file"),
        (b"PAR1" + b"\x00" * 20, "not a Parquet file"),
        (b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1", "longer than the file"),
        (b"PAR1" + b"\x01" * 40 + b"\x28\x00\x00\x00PAR1", "cannot be read"),
    ],
)
def test_broken_parquet_is_refused(content: bytes, match: str) -> None:
    with pytest.raises(ArtefactError, match=match):
        check_parquet(content, "x.parquet")


def test_a_footer_that_promises_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bfrbctl.artefacts.files.MAX_PARQUET_CELLS", 5)
    with pytest.raises(ArtefactError, match="promises 3 rows x 2 columns"):
        check_parquet(parquet_bytes(pl.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]})), "x.parquet")


def test_a_file_that_unpacks_to_absurd_sizes_is_refused() -> None:
    bomb = parquet_bytes(pl.DataFrame({"a": ["x" * 100_000_000]}))
    assert len(bomb) < 100_000
    with pytest.raises(ArtefactError, match="bytes packed into"):
        check_parquet(bomb, "x.parquet")
    rows = parquet_bytes(pl.select(a=pl.repeat(1, 50_000_000, dtype=pl.Int8)))
    assert len(rows) < 100_000
    with pytest.raises(ArtefactError, match="promises 50000000 rows x 1 columns"):
        check_parquet(rows, "x.parquet")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ArtefactError, match="b"):
        decode_parquet(parquet_bytes(pl.DataFrame({"a": [1]})), "x.parquet", ["a", "b"])


@given(st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
def test_damaged_parquet_never_crashes(position: int, junk: bytes) -> None:
    content = bytearray(parquet_bytes(pl.DataFrame({"a": list(range(50)), "b": ["x"] * 50})))
    at = position % len(content)
    content[at : at + len(junk)] = junk
    try:
        table = decode_parquet(bytes(content), "x.parquet")
    except ArtefactError:
        return
    assert isinstance(table, pl.DataFrame)


def test_a_symlink_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_regular(tmp_path / "link", limit=10)


def test_parquet_written_by_polars_reads_back(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": pl.Series([1.5, None], dtype=pl.Float32)})
    assert decode_parquet(parquet_bytes(table), "x").equals(table)
    assert pl.read_parquet(io.BytesIO(parquet_bytes(table))).schema == table.schema
