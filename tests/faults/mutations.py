"""Damage: what bad memory, a cut download or a stranger could make of a file, drawn from a seeded generator."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

Rng = np.random.Generator
Damage = Callable[[Rng, bytes], bytes]

LITERALS = (
    *("null", "true", "false", "-1", "0", "1", "2", "0.5", "-0.0", "3.7", "1e308", "-1e308", "1e999", "-1e999"),
    *("NaN", "Infinity", "1" + "0" * 30, "9" * 400, "9" * 5000, "1e-320", '""', '"x"', '"1"', '"nan"', '"é"'),
    *('"' + "x" * 5000 + '"', '"\\ud800"', '"\\u0000"', '"../../etc/passwd"', "[]", "{}", "[[]]", '{"a": 1}'),
    *("[" * 100 + "]" * 100, "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "[" + "0," * 100_000 + "0]"),
    *("[1e999, 1]", '["x", "x"]', "[null]", '{"size": 9223372036854775807, "sha256": "x"}'),
)
"""JSON texts that stand where another value was expected."""

FIELDS = (
    *("", "abc", "1e999", "-1e999", "NaN", "inf", "1e39", "9" * 400, "-1", "0x10", '"', '""', '"a,b"', "'", "\t", "\0"),
    *("\r", "\n", "\n\n", ";", ",", ",,,,", " 1 ", "1,5", "é", "\ufeff", "x" * 70_000, "1e-50", "99999999999999999999"),
    *("SEQ_000000", "SEQ_000001", "Target", "Gesture", "true", "null", "-0.0", "1.7976931348623157e308"),
)
"""What a field of a CSV file becomes."""

NUMBERS = ("-1", "0", "1", "2", "2147483647", "-2147483648", "4294967296", "9" * 30, "1e308", "1e999", "nan", "inf", "")


def pick(rng: Rng, options: Any) -> Any:
    """Draw one of some things."""
    return options[int(rng.integers(len(options)))]


def place(rng: Rng, size: int) -> int:
    """Draw a position, every other time one near the begin or the end, where headers and footers are."""
    if rng.random() < 0.5:
        return int(rng.integers(size))
    near = int(rng.integers(min(size, 1024)))
    return near if rng.random() < 0.3 else size - 1 - near


def in_bytes(rng: Rng, content: bytes) -> bytes:
    """Damage bytes without knowing what they are."""
    if not content:
        return rng.bytes(10)
    data = bytearray(content)
    first, second = sorted((place(rng, len(data)), place(rng, len(data))))
    second = min(second, first + int(rng.integers(1, 4096)))
    what = int(rng.integers(11))
    if what <= 1:
        for _ in range(1 if what == 0 else int(rng.integers(2, 17))):
            data[place(rng, len(data))] ^= 1 << int(rng.integers(8))
    elif what == 2:
        del data[first:]
    elif what == 3:
        del data[first:second]
    elif what == 4:
        data[first:second] = bytes(second - first)
    elif what == 5:
        data[first:second] = b"\xff" * (second - first)
    elif what == 6:
        data[first:first] = data[first:second]
    elif what == 7:
        data[first:first] = rng.bytes(int(rng.integers(1, 64)))
    elif what == 8:
        data += rng.bytes(int(rng.integers(1, 64)))
    elif what == 9:
        data[first : first + 8] = int(pick(rng, (-1, 2**31 - 1, 2**63 - 1, -(2**63)))).to_bytes(
            8, "little", signed=True
        )
    else:
        half = len(data) // 2
        data = data[half:] + data[:half]
    return bytes(data)


def in_footer(rng: Rng, content: bytes) -> bytes:
    """Damage the footer of a Parquet file, which holds counts, types and places; its length stays sound at times."""
    length = int.from_bytes(content[-8:-4], "little")
    body, footer = content[: -8 - length], bytearray(content[-8 - length : -8])
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(footer)))
        what = int(rng.integers(4))
        if what == 0:
            footer[at] ^= 1 << int(rng.integers(8))
        elif what == 1:
            footer[at] = 0x7F
        elif what == 2:  # a varint that is as large as can be
            footer[at : at + 1] = b"\xff\xff\xff\xff\x0f"
        else:
            del footer[at : at + int(rng.integers(1, 9))]
    length = len(footer) if rng.random() < 0.9 else int(rng.integers(2**32))
    return body + bytes(footer) + length.to_bytes(4, "little") + b"PAR1"


def in_pages(rng: Rng, content: bytes) -> bytes:
    """Damage the pages of a Parquet file and their headers, but not its footer."""
    length = int.from_bytes(content[-8:-4], "little") + 8
    body = bytearray(content[4:-length])
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(body)))
        if rng.random() < 0.5:
            body[at] ^= 1 << int(rng.integers(8))
        else:
            body[at : at + 5] = b"\xff\xff\xff\xff\x0f"
    return content[:4] + bytes(body) + content[-length:]


def in_table(rng: Rng, content: bytes) -> bytes:
    """Give a sound Parquet file that holds a wrong table."""
    table = pl.read_parquet(io.BytesIO(content))
    out = io.BytesIO()
    _wrong_table(rng, table).write_parquet(out, compression="zstd", compression_level=1)
    return out.getvalue()


def _wrong_table(rng: Rng, table: pl.DataFrame) -> pl.DataFrame:
    one, two = pick(rng, table.columns), pick(rng, table.columns)
    rows = max(table.height, 1)
    what = int(rng.integers(12))
    if what == 0:
        return table.with_columns(table[two].alias(one), table[one].alias(two))
    if what == 1:
        return table.drop(one)
    if what == 2:
        return table.rename({one: f"{one}_x"})
    if what == 3:
        return table.clear() if rng.random() < 0.3 else table.head(int(rng.integers(rows)))
    if what == 4:
        return pl.concat([table, table.head(1 + int(rng.integers(rows)))])
    if what == 5:
        return table.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(2**31)))
    if what == 6:
        return table.with_columns(
            pl.lit(None).alias(one) if rng.random() < 0.5 else pl.lit(None, dtype=table[one].dtype).alias(one)
        )
    if what <= 8:
        return table.with_columns(_of_another_type(rng, table[one]).alias(one))
    return table.with_columns(_with_odd_values(rng, table[one]).alias(one))


def _of_another_type(rng: Rng, column: pl.Series) -> pl.Series:
    numbers = pl.Series(np.arange(len(column)) - 3)
    made: tuple[Callable[[], pl.Series], ...] = (
        lambda: numbers.cast(pl.String),
        lambda: numbers.cast(pl.Float64),
        lambda: numbers.cast(pl.Int64) * (2**58),
        lambda: numbers.cast(pl.Int8, strict=False),
        lambda: numbers > 2,
        lambda: numbers.cast(pl.Datetime("us")),
        lambda: numbers.cast(pl.Decimal(20, 3)),
        lambda: numbers.cast(pl.String).cast(pl.Categorical),
        lambda: numbers.cast(pl.String).cast(pl.Binary),
        lambda: numbers.map_elements(lambda value: [value], return_dtype=pl.List(pl.Int64)),
        lambda: pl.DataFrame({"a": numbers}).to_struct(),
        lambda: pl.Series([None] * len(column), dtype=pl.Null),
    )
    return pick(rng, made)()


def _with_odd_values(rng: Rng, column: pl.Series) -> pl.Series:
    where = pl.Series(rng.random(len(column)) < pick(rng, (0.02, 0.5, 1.0)))
    if column.dtype.is_float():
        odd: Any = pick(rng, (float("nan"), float("inf"), -float("inf"), 1e30, -1.0, 1e-40, None))
    elif column.dtype.is_integer():
        low, high = (int(bound.item()) for bound in (pl.select(column.dtype.min()), pl.select(column.dtype.max())))
        odd = pick(rng, (low, high, 0, 1, None))
    elif column.dtype == pl.String:
        odd = pick(rng, ("", "x" * 10_000, "\0", "é", "SEQ_000000", None))
    else:
        odd = None
    return (
        column.to_frame()
        .select(pl.when(~where).then(pl.col(column.name)).otherwise(pl.lit(odd).cast(column.dtype)))
        .to_series()
    )


def in_json(rng: Rng, content: bytes) -> bytes:
    """Damage the content of a JSON file: a value of another kind or size, a key gone, renamed, or twice."""
    value = json.loads(content)
    holder, key = pick(rng, list(_nodes(value)))
    what = int(rng.integers(10))
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[f"{key}_x"] = holder.pop(key)
    elif what == 2 and isinstance(holder, list):
        holder += holder[: 1 + int(rng.integers(len(holder)))]
    elif what == 3:
        other, place_there = pick(rng, list(_nodes(value)))
        holder[key], other[place_there] = _copy(other[place_there]), _copy(holder[key])
    elif what == 4 and isinstance(holder, dict):
        text = json.dumps(value).replace(f"{json.dumps(key)}:", f"{json.dumps(key)}: 0, {json.dumps(key)}:", 1)
        return text.encode()
    else:
        holder[key] = "@here@"
        return json.dumps(value).replace('"@here@"', pick(rng, LITERALS), 1).encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _nodes(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _nodes(value[key])


def in_csv(rng: Rng, content: bytes) -> bytes:
    """Damage lines and fields of a CSV file."""
    lines = content.decode().split("\n")
    at = int(rng.integers(min(len(lines), 40))) if rng.random() < 0.5 else int(rng.integers(len(lines)))
    at = 0 if rng.random() < 0.2 else at
    fields = lines[at].split(",")
    position, other = int(rng.integers(len(fields))), int(rng.integers(len(fields)))
    what = int(rng.integers(14))
    if what <= 5:
        fields[position] = pick(rng, FIELDS)
        lines[at] = ",".join(fields)
    elif what == 6:
        for number, line in enumerate(lines):
            columns = line.split(",")
            if len(columns) > max(position, other):
                columns[position], columns[other] = columns[other], columns[position]
                lines[number] = ",".join(columns)
    elif what == 7:
        del lines[at : at + int(rng.integers(1, 20))]
    elif what == 8:
        lines.insert(at, lines[int(rng.integers(len(lines)))])
    elif what == 9:
        lines[1:-1] = [lines[1 + int(i)] for i in rng.permutation(len(lines) - 2)]
    elif what == 10:
        return content.replace(b"\n", pick(rng, (b"\r\n", b"\r", b"\n\n", b"")))
    elif what == 11:
        return content.decode().encode(pick(rng, ("utf-16", "utf-8-sig", "utf-32")))
    elif what == 12:
        return content.replace(b",", pick(rng, (b";", b"\t", b", ")))
    else:
        lines[at] = ",".join(fields[: int(rng.integers(len(fields) + 1))]) + pick(rng, ("", ",,", ',"'))
    return "\n".join(lines).encode()


def in_trees(rng: Rng, content: bytes) -> bytes:
    """Damage lines and numbers of a LightGBM text."""
    lines = content.decode().split("\n")
    at = int(rng.integers(len(lines)))
    key, equals, values = lines[at].partition("=")
    numbers = values.split(" ")
    what = int(rng.integers(8))
    if what <= 4:
        numbers[int(rng.integers(len(numbers)))] = pick(rng, NUMBERS)
        lines[at] = f"{key}{equals}{' '.join(numbers)}"
    elif what == 5:
        del lines[at]
    elif what == 6:
        lines.insert(at, pick(rng, lines))
    else:
        lines[at] = f"{key}{equals}{' '.join(numbers * int(rng.integers(2, 4)))}"
    return "\n".join(lines).encode()


def in_arrays(rng: Rng, content: bytes) -> bytes:
    """Damage the header or the packing of one array of an npz file."""
    if rng.random() < 0.3:
        return in_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = pick(rng, list(members))
    data = members[name]
    what = int(rng.integers(7))
    if what == 0:
        descriptor = pick(rng, (b"'|O'", b"'<f8'", b"'>f4'", b"'<i4'", b"'|V4'", b"'<c8'"))
        members[name] = re.sub(rb"'descr': '[^']*'", b"'descr': " + descriptor, data)
    elif what == 1:
        shape = pick(rng, (b"(9999999999,)", b"(-1,)", b"()", b"(1,", b"(2**40,)", b"(0,)", b"(True,)"))
        members[name] = re.sub(rb"\([0-9, ]*\)", shape, data, count=1)
    elif what == 2:
        members[pick(rng, ("../x.npy", "/x.npy", "x.pkl", name + ".npy"))] = members.pop(name)
    elif what == 3:
        values = bytearray(data)
        values[-4:] = np.array(pick(rng, (np.nan, np.inf, 1e38)), dtype="<f4").tobytes()
        members[name] = bytes(values)
    elif what == 4:
        members[name] = data[: len(data) // 2]
    elif what == 5:
        members[name] = data + bytes(1 << 20)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if what == 6 else zipfile.ZIP_STORED) as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return out.getvalue()
