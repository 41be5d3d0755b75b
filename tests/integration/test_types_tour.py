"""Every type there is, with values as hostile as they come: each arrives exactly, or is rejected with its reason.

The catalog is walked, so that no type is forgotten. A row has one value, alone, in an array and within a composite, so
that a reject is about that value and no other. Both servers are toured: the embedded one, and Debian's, which has xml
and the extensions of contrib.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine
from tests.integration.source_helpers import debian_binaries, describe, server

NUMBERS = (
    "0", "-0", "-0.000", "1.50", "-1.50", "100", "-1", "0.1", "1e125", "-1e125", "9" * 38, f"-{'9' * 38}",
    f"0.{'9' * 38}", f"{'9' * 38}{'0' * 88}", f"0.{'0' * 129}1", f"-0.{'0' * 92}{'7' * 38}", f"1.{'0' * 16383}",
    # and what N cannot hold
    "NaN", "Infinity", "-Infinity", "9" * 39, f"1{'0' * 126}", f"-1{'0' * 131071}", "9" * 131072, f"0.{'0' * 130}1",
    f"-0.{'0' * 16382}1", f"{'1' * 20}.{'1' * 19}",
)  # fmt: skip
FLOATS = (
    "0", "-0", "0.1", "-1.5", "1e-45", "3.4028235e38", "-1.17549435e-38", "16777217", "NaN", "Infinity", "-Infinity",
)  # fmt: skip
TEXTS = (
    "", " ", "  padded  ", "plain", "NULL", "null", "Null", "{}", "{a,b}", "()", "(,)", "[1,2)", ",", ";", '"', '""',
    "'", "\\", "\\\\", "\\N", "\\.", '\\"', "\\x00", "a\\", '"a"=>"b"', "]={", "\v",
    "tab\tnewline\nreturn\rfeed\fbell\x07back\x08",
    "\x01\x1b[31mred\x7f\x85", "ünïcödé ✓ 漢字 \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301",
    "\u202eright to left\u202c", "\uffff\U0010ffff\ufeff\u2028\u2029", '{"S":"json"}', "%s ${x} `x`; drop table x --",
    "0123456789abcdef" * 6000,
)  # fmt: skip
JSON = (
    "null", "true", "false", "0", "-0", "-0.0", "1.50", "-1E+3", "1e125", "9" * 38, '""', '"NULL"',
    '"\\u00e9\\ud83d\\ude00"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', "[]", "{}", "[[]]", '[{}, [null], ""]',
    '{"a": {"b.c": [1, "x", null, true]}, "ä b": {}}', '{"S": "1", "N": {"M": []}}', "[" * 31 + "1" + "]" * 31,
    '{"a": ' * 31 + "{}" + "}" * 31, f'{{"{"k" * 65_535}": 1}}', f'"{"x" * 50_000}"',
    "[" + ",".join(["-1.5"] * 2000) + "]",
    # and what no document can hold
    '{"a": {"": 1}}', "[1e126]", "1e-131", f'{{"n": {"1" * 39}}}', "[" * 32 + "1" + "]" * 32,
    '{"a": ' * 40 + "1" + "}" * 40, f'{{"{"k" * 65_536}": 1}}',
)  # fmt: skip
TIMES = (
    "1970-01-01", "2024-02-29 23:59:59.999999", "0001-01-01", "0001-12-31 23:59:59 BC", "0044-03-15 12:00:00.5 BC",
    "1582-10-10 00:00:00.000001", "9999-12-31 23:59:59.5", "10000-01-01", "infinity", "-infinity",
)  # fmt: skip

VALUES: dict[str, Sequence[str]] = {
    # numbers
    "int2": ("0", "-32768", "32767"),
    "int4": ("0", "-2147483648", "2147483647"),
    "int8": ("0", "-9223372036854775808", "9223372036854775807"),
    "oid": ("0", "4294967295"),
    "numeric": NUMBERS,
    "float4": FLOATS,
    "float8": (*FLOATS, "1e125", "9.999999999999999e125", "1e-130", "-5e-100", "1e126", "1e-131", "1e308", "5e-324"),
    "money": ("0", "-0.01", "92233720368547758.07", "-92233720368547758.08"),
    # bytes, bits, truth
    "bool": ("true", "false"),
    "bytea": ("\\x", "\\x00", "\\x5c5c4e0a", f"\\x{bytes(range(256)).hex()}", "\\x" + "ff" * 60_000),
    "bit": ("0", "1"),
    "varbit": ("", "0", "0001" * 50),
    # texts
    "text": TEXTS,
    "varchar": TEXTS,
    "bpchar": TEXTS,
    "name": (*(text[:15] for text in TEXTS), "x" * 63),
    "char": ("", "x", " ", '"', "\\", ",", "{", "\n", "\\200", "\\377"),
    "refcursor": ("", "<unnamed portal 1>", '"'),
    # documents
    "json": (*JSON, " \n{ \"a\"\t:\r[ 1 ,2 ] } ", '"\\u0000"', '{"a": "x\\u0000y"}', "1e-999999999999",
             '{"a": 1, "a": 2}', '{"a": 1, "\\u0061": 1}', '"\\ud800"', '["\\ude00\\ud83d"]', '{"\\ud83d": 1}'),
    "jsonb": JSON,
    "jsonpath": ('$', 'strict $."a b"[*]?(@ > 1 && @.x == "\\"")', "$.**{2 to last}.size()", '"\\\\"'),
    "xml": ("", "text", "<a/>", "<a b='\"'>&lt;<![CDATA[<\\>]]></a>", "<!-- c --><a>é</a>",
            '<?xml version="1.0" encoding="UTF-8"?><a/>'),
    "tsvector": ("", "'a':1A 'b c':2,3B 'it''s' 'back\\\\slash' '\"'", "'é':16383"),
    "tsquery": ("", "'a' & !'b' <-> 'c':*AB | ( 'd' <2> 'it''s' )"),
    # dates and times
    "date": (*(text.replace("23:59:59 BC", "BC").replace("12:00:00.5 BC", "BC") for text in TIMES),
             "4714-11-24 BC", "5874897-12-31"),
    "time": ("00:00", "24:00:00", "23:59:59.999999", "12:34:56.7"),
    "timetz": ("00:00+15:59:59", "24:00:00-15:59:59", "23:59:59.999999+05:30", "12:00-00:00:01", "12:00+00"),
    "timestamp": (*TIMES, "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999"),
    "timestamptz": (*TIMES, "2024-02-29 23:30:00-00:45", "1970-01-01 00:00:00+15:59:59", "0001-01-01 00:00:00+01",
                    "9999-12-31 23:59:59-14", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00"),
    "interval": ("0", "-1 year", "1 mon -1 day", "-00:00:00.000001", "1 year -2 mons 3 days -04:05:06.789",
                 "178000000 years", "-178000000 years 11 mons", "2147483647 days", "1 day -00:00:01",
                 "-2562047788:00:54.775807"),
    # networks
    "inet": ("0.0.0.0", "::", "255.255.255.255/0", "10.0.0.1/8", "::ffff:1.2.3.4", "fe80::1/64", "10.1.2.3/32"),
    "cidr": ("0.0.0.0/0", "::/0", "10.0.0.0/8", "::1/128"),
    "macaddr": ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"),
    "macaddr8": ("00:00:00:00:00:00:00:00", "08:00:2b:ff:fe:01:02:03"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    # places
    "point": ("(0,-0)", "(NaN,Infinity)", "(-Infinity,1e308)", "(1e-300,0.1)"),
    "line": ("{1,-2,3}", "{0,-1e300,-0}"),
    "lseg": ("[(0,0),(1,1)]", "[(NaN,1),(Infinity,-0)]"),
    "box": ("(1,1),(0,0)", "(Infinity,1e308),(-Infinity,-1e308)"),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,-Infinity))"),
    "polygon": ("((0,0),(1,1),(2,0))", "((NaN,0))"),
    "circle": ("<(0,0),0>", "<(-1e300,0.1),Infinity>"),
    # ranges
    "int4range": ("empty", "(,)", "[1,5)", "(,5]", "[-2147483648,2147483646]"),
    "int8range": ("empty", "[-9223372036854775808,)"),
    "numrange": ("empty", "[1.50,NaN)", "(-Infinity,Infinity)", "(1e-200,1e200]"),
    "daterange": ("[-infinity,infinity)", "(0044-03-15 BC,)"),
    "tsrange": ('["2024-02-29 12:00:00.5",)', "[-infinity,infinity]", '("0044-03-15 00:00:00 BC",2024-01-01)'),
    "tstzrange": ('["2024-02-29 12:00:00+05:30",)', "empty"),
    "int4multirange": ("{}", "{(,)}", "{[1,2),[5,)}"),
    "int8multirange": ("{}", "{[1,2),[5,)}"),
    "nummultirange": ("{}", "{[1.50,2],(5,Infinity)}"),
    "datemultirange": ("{}", "{[2024-02-29,2024-03-01),[infinity,)}"),
    "tsmultirange": ("{}", '{["2024-02-29 12:00:00",2024-03-01)}'),
    "tstzmultirange": ("{}", '{["2024-02-29 12:00:00-11",)}'),
    # names of things in the database
    "regclass": ("pg_class", "0", "4294967295", "tour"),
    "regtype": ("timestamp with time zone", '"char"', "0", "4294967295"),
    "regproc": ("now", "0", "4294967295"),
    "regprocedure": ("sum(integer)", "now()", "0"),
    "regoper": ("||/", "0", "4294967295"),
    "regoperator": ("+(integer,integer)", "||/(none,double precision)"),
    "regcollation": ('"C"', "0"),
    "regconfig": ("english", "0"),
    "regdictionary": ("simple", "4294967295"),
    "regnamespace": ("pg_catalog", "0"),
    "regrole": ("ROLE", "0"),
    "aclitem": ("=r/ROLE", "ROLE=a*rw*/ROLE"),
    # the server's own
    "int2vector": ("", "1 -2 32767"),
    "oidvector": ("", "0 4294967295"),
    "tid": ("(0,0)", "(4294967295,65535)"),
    "xid": ("0", "4294967295"),
    "cid": ("0", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"),
    "pg_snapshot": ("1:1:", "10:20:10,14,15"),
    "txid_snapshot": ("1:1:", "10:20:10,14,15"),
    # extensions
    "vector": ("[0]", "[1,-2.5,1e-38,3.4028235e38,-0]"),
    "halfvec": ("[65504,-65504,5.9604645e-08]",),
    "sparsevec": ("{}/3", "{1:1.5,3:-2}/5"),
    "citext": TEXTS,
    "hstore": ("", "a=>1", '"a"=>NULL', '"NULL"=>"NULL"', '"q\\"\\\\"=>"\\"\\\\"', '"a=>b"=>"c, d", "e"=>""',
               '"\n"=>"\t"', '"ünï \U0001f600"=>"é"', f'"{"k" * 65_535}"=>NULL', '""=>"x"', f'"{"k" * 65_536}"=>"x"'),
    "ltree": ("", "Top.Science.Astronomy_2"),
    "lquery": ("*.!a*@|b.c%.d{1,}",),
    "ltxtquery": ("Europe & Russia*@ & !Transportation",),
    "cube": ("(1,-2.5),(3,4)", "(0)", "(1e300),(-1e-300)"),
    "seg": ("1.5 .. 2", "<10", "~5", "> 3.140"),
    "lo": ("0", "4294967295"),
    "query_int": ("1&(2|!3)",),
    "isbn": ("978-0-393-04002-9",),
    "isbn13": ("978-0-393-04002-9",),
    "ismn": ("979-0-060-11561-5",),
    "ismn13": ("979-0-060-11561-5",),
    "issn": ("1436-4522",),
    "issn13": ("977-1436-452-00-8",),
    "ean13": ("978-0-393-04002-9",),
    "upc": ("220356483481",),
}  # fmt: skip

# What nothing but the server itself can make: where it comes from.
MADE: dict[str, str] = {
    "pg_node_tree": "select adbin from pg_attrdef where adrelid = 'witness'::regclass",
    "pg_ndistinct": "select stxdndistinct from pg_statistic_ext_data where stxdndistinct is not null limit 1",
    "pg_dependencies": "select stxddependencies from pg_statistic_ext_data where stxddependencies is not null limit 1",
    "pg_mcv_list": "select stxdmcv from pg_statistic_ext_data where stxdmcv is not null limit 1",
}
WITNESS = """
create table witness (a integer default 42, b integer);
insert into witness select n % 5, n % 5 from generate_series(1, 100) n;
create statistics seen (ndistinct, dependencies, mcv) on a, b from witness;
analyze witness;
"""

# Keys of indexes, which no column ever holds a value of.
UNMADE = {
    "gtsvector", "ghstore", "ltree_gist", "intbig_gkey", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary",
}  # fmt: skip

# Types of our own, and types with a modifier: as SQL writes them.
OWN = """
create type mood as enum ('fine', '', 'it''s "so-so", \\really', 'ünï {x} \U0001f600', 'NULL');
create domain cents as numeric check (value <> 13);
create domain dimes as cents;
create domain tags as text[];
create type pair as (a integer, "b ""q"" \U0001f600" text, "c.d e" tags);
create domain named as pair;
create type nest as (p pair, ps pair[], d dimes, m mood[], t timestamptz, j jsonb);
alter type nest add attribute gone integer;
alter type nest drop attribute gone;
alter type nest add attribute late bytea;
create type nothing as ();
create table shape (x integer, "select" text);
create type floatrange as range (subtype = float8);
create type textrange as range (subtype = text);
"""
NESTED = (
    '("(1,""x,y"",)","{""(2,,{a})"",NULL,""(,\\\\""\\\\"",)""}",1.50,"{fine,NULL,""""}",'
    '"2024-02-29 12:00:00+05:30","{""a"": [1.50, null, """"]}","\\\\x00ff")'
)
DECLARED: dict[str, Sequence[str]] = {
    "char(7)": ("", "a", "é'\\\"", "       "),
    "varchar(3)": ("", "a'\""),
    "bit(5)": ("00000", "10101"),
    "numeric(38,10)": ("9999999999999999999999999999.9999999999", "-0.0000000001", "NaN"),
    "numeric(20,-3)": ("12345", "-99999999999999999999000"),
    "timestamptz(0)": ("2024-02-29 23:59:59.999999+00",),
    "interval hour to second(2)": ("-100:00:00.129",),
    "mood": ("fine", "", 'it\'s "so-so", \\really', "ünï {x} \U0001f600", "NULL"),
    "cents": ("1.50", "NaN", "9" * 39),
    "dimes": ("-0.10", "Infinity"),
    "tags": ("{}", '{NULL,"NULL","",a}', '{{"a,b","{c}"},{"\\"q\\"","back\\\\slash"}}', "[0:1]={a,b}"),
    "pair": ("(,,)", '(1,"",{})', '(-2,"a ""b"" \\\\ (c), {d}","{NULL,""x y"",""\\\\""""}")', '(1,x,"[3:3]={z}")'),
    "named": ("(,,)", '(1," ",{NULL})'),
    "nest": (
        "(,,,,,,)",
        NESTED,
        "(,,NaN,,,,)",
        '(,,,,infinity,"[1e200]",)',
    ),
    "nothing": ("()",),
    "shape": ("(,)", '(1,"")'),
    "floatrange": ("empty", "[-Infinity,NaN]", "(-0,5e-324)"),
    "textrange": ("empty", '["",)', '["\\"c\\"","a,b"]', '("\\\\",]'),
    "floatmultirange": ("{}", "{[1,2],[3,)}"),
}
# An interval learned infinity in PostgreSQL 17.
FROM_17: dict[str, Sequence[str]] = {"interval": ("infinity", "-infinity")}
EXTENSIONS = ("citext", "hstore", "ltree", "cube", "seg", "isn", "lo", "intarray", "vector")
LONG = 1000  # characters, above which a value is not repeated in the same row


@dataclass(frozen=True)
class Tour:
    """A table, ``tour``, with columns for every type.

    Attributes:
        url: Where it is.
        shown: The columns of one type each.
        rows: How many rows it has.
    """

    url: str
    shown: frozenset[str]
    rows: int


class Filling:
    """The table in the making, in a schema of its own."""

    def __init__(self, url: str) -> None:
        self._schema = f"t_{secrets.token_hex(5)}"
        separator = "&" if "?" in url else "?"
        self.url = f"{url}{separator}options=-csearch_path%3D{self._schema}%2Cpublic"
        self.connection = psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
        for name in EXTENSIONS:
            if self.ask("select count(*) from pg_available_extensions where name = %s", name):
                self.do(f"create extension if not exists {name} schema public")
        self.do(f"create schema {self._schema}")
        self.do(WITNESS + OWN)
        self.role = str(self.ask("select current_user"))
        self.rows = 0

    def do(self, statement: str) -> None:
        self.connection.execute(sql.SQL(statement))

    def ask(self, question: str, *values: object) -> Any:
        row = self.connection.execute(sql.SQL(question), values).fetchone()
        assert row is not None
        return row[0]

    def has_xml(self) -> bool:
        try:
            self.ask("select '<a/>'::xml::text")
        except psycopg.errors.FeatureNotSupported:
            return False
        return True

    def drop(self) -> None:
        self.do(f"drop schema {self._schema} cascade")
        self.connection.close()

    def types(self) -> tuple[dict[str, str], set[str]]:
        """Find what a column can be of: how SQL writes each type, by a name of ours; and which have no arrays."""
        found = self.connection.execute(
            "select typname, oid::regtype::text, typarray from pg_type t"
            " where typtype in ('b', 'd', 'r', 'm') and not exists (select from pg_type e where e.typarray = t.oid)"
            "   and (typnamespace = 'pg_catalog'::regnamespace or exists"
            "        (select from pg_depend where classid = 'pg_type'::regclass and objid = t.oid and deptype = 'e'))"
        ).fetchall()
        forgotten = {name for name, _, _ in found} - VALUES.keys() - MADE.keys() - UNMADE
        assert not forgotten, f"types that the tour has no values of: {forgotten}"
        written = {name: spelled for name, spelled, _ in found if name not in UNMADE}
        if not self.has_xml():
            del written["xml"]
        return written | {name: name for name in DECLARED}, {name for name, _, array in found if not array}

    def fill(self) -> frozenset[str]:
        """Make the table; answer which types it shows."""
        written, without_array = self.types()
        columns = [f'"{name}" {spelled}' for name, spelled in written.items()]
        arrays = [f'"{name}[]" {spelled}[]' for name, spelled in written.items() if name not in without_array]
        self.do(f"create type everything as ({', '.join(columns)})")
        self.do(f"create table tour (id integer primary key, {', '.join(columns + arrays)}, whole everything,"
                " wholes everything[])")  # fmt: skip
        self.add("whole", f"row({', '.join(['null'] * len(written))})::everything")
        for name, spelled in written.items():
            if name in MADE:
                self.add(name, f"({MADE[name]})")
                continue
            values = [value.replace("ROLE", self.role) for value in self.values(name)]
            for value in values:
                self.add_value(name, value, written, has_array=name not in without_array)
            short = [value for value in values if len(value) <= LONG]
            if name not in without_array:
                self.add_arrays(name, spelled, short)
            within = self.within(name, written)
            self.add("wholes", f"array[{within}, null, {within}]", short[0], short[-1])
        return frozenset(written)

    def values(self, name: str) -> Sequence[str]:
        since_17 = FROM_17.get(name, ()) if self.connection.info.server_version >= 170_000 else ()
        return (*(VALUES.get(name) or DECLARED[name]), *since_17)

    def add_value(self, name: str, value: str, written: dict[str, str], *, has_array: bool) -> None:
        """Add a row with a value: alone, and where it is short in an array and in a composite as well."""
        names, expressions, values = [name], [f"%s::{written[name]}"], [value]
        if len(value) <= LONG and has_array:
            names.append(f"{name}[]")
            expressions.append(f"%s::{written[name]}[]")
            values.append(array_of([value, None], ";" if name == "box" else ","))
        if len(value) <= LONG:
            names.append("whole")
            expressions.append(self.within(name, written))
            values.append(value)
        self.insert(names, expressions, values)

    def add_arrays(self, name: str, spelled: str, values: Sequence[str]) -> None:
        """Add arrays of all shapes."""
        mark = ";" if name == "box" else ","
        first, second = values[0], values[min(1, len(values) - 1)]
        rows = (array_of([first, second], mark), array_of([second, None], mark))
        for text in (
            "{}",
            array_of(values, mark),
            f"{{{rows[0]}{mark}{rows[1]}}}",
            f"{{{{{rows[0]}}}{mark}{{{rows[1]}}}}}",
            f"[0:1]={rows[0]}",
            f"[-2:-1][7:8]={{{rows[0]}{mark}{rows[1]}}}",
        ):
            self.add(f"{name}[]", f"%s::{spelled}[]", text)

    def within(self, name: str, written: dict[str, str]) -> str:
        """Write a composite of every type, with a parameter in one place and NULL in all others."""
        fields = [f"%s::{spelled}" if other == name else "null" for other, spelled in written.items()]
        return f"row({', '.join(fields)})::everything"

    def add(self, column: str, expression: str, *values: str) -> None:
        self.insert([column], [expression], values)

    def insert(self, columns: Sequence[str], expressions: Sequence[str], values: Sequence[str]) -> None:
        statement = sql.SQL("insert into tour (id, {}) values ({}, {})").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.Literal(self.rows),
            sql.SQL(", ").join(map(sql.SQL, expressions)),
        )
        try:
            self.connection.execute(statement, values)
        except psycopg.Error as error:
            raise AssertionError(f"{columns} {[value[:80] for value in values]}: {error}") from error
        self.rows += 1


def array_of(values: Sequence[str | None], mark: str) -> str:
    """Write an array of one dimension, each value in quotes."""
    quoted = [
        "NULL" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values
    ]
    return f"{{{mark.join(quoted)}}}"


@pytest.fixture(scope="module", params=["embedded", "debian"])
def tour(request: pytest.FixtureRequest) -> Iterator[Tour]:
    with ExitStack() as until_over:
        if request.param == "embedded":
            url = request.getfixturevalue("stack").postgres_url
        else:
            binaries = debian_binaries()
            if binaries is None:
                pytest.skip("Debian's PostgreSQL is not installed")
            url = until_over.enter_context(server(binaries)).url
        filling = Filling(url)
        until_over.callback(filling.drop)
        shown = filling.fill()
        yield Tour(filling.url, shown, filling.rows)


RULES = {
    "number-not-finite", "number-precision", "number-range", "array-bounds", "nesting-depth", "json-duplicate-key",
    "json-surrogate", "json-empty-key", "json-key-too-long",
}  # fmt: skip


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_every_type_arrives_exactly_or_is_rejected_with_its_reason(
    tour: Tour, stack: Stack, unique: str, tmp_path: Path, layout: str
) -> None:
    (tmp_path / "momento-etl.toml").write_text(f'[cache]\nlayout = "{layout}"\n')
    command_line = CommandLine.on(stack, tour.url, tmp_path)
    arguments = ("run", "--table", "tour", "--cache", unique, "--destination", unique, "--output", "json")
    summary = command_line(*arguments, "--rejects-file", "rejects", code=3).json
    outcome = oracle.compare(tour.url, stack.dynamodb_url, "select * from tour", unique)
    assert not outcome.differences, "\n".join(text[:500] for text in outcome.differences[:20])
    assert outcome.equal + outcome.rejected == outcome.rows == tour.rows
    assert [summary[f"rows_{what}"] for what in ("extracted", "loaded", "rejected")] == [
        tour.rows, outcome.equal, outcome.rejected
    ]  # fmt: skip

    _, items = oracle.items_of(stack.dynamodb_url, unique)
    assert {name for item in items for name in item} >= tour.shown | {"whole", "wholes"}
    assert set(outcome.reasons.values()) == RULES | (
        {"hstore-empty-key", "hstore-key-too-long"} if "hstore" in tour.shown else set()
    )
    rejects = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    assert {reject["row"]["id"]: reject["rule"] for reject in rejects} == outcome.reasons
    assert all(reject["message"].startswith("column ") and reject["hint"] for reject in rejects)
    in_cache = command_line("inspect-cache", "tour", "--cache", unique, "--rejects", "--output", "json").json
    assert [reject["row"] for reject in in_cache["rejects"]] == [reject["row"] for reject in rejects]
    _, rows = oracle.rows_of(tour.url, "select * from tour order by id")
    whole = {str(row["id"]): {name: text for name, text in row.items() if text is not None} for row in rows}
    for reject in rejects:
        assert reject["row"] == whole[reject["row"]["id"]]
        assert reject["types"] == {name: in_cache["types"][name] for name in reject["row"]}


def test_what_was_rejected_arrives_as_text_where_it_may(tour: Tour, stack: Stack, unique: str, tmp_path: Path) -> None:
    command_line = CommandLine.on(stack, tour.url, tmp_path)
    arguments = ("run", "--table", "tour", "--cache", unique, "--destination", unique, "--quiet")
    command_line(*arguments, "--on-unrepresentable", "string")
    _, items = oracle.items_of(stack.dynamodb_url, unique)
    assert len(items) == tour.rows
    arrived = {str(item["id"][1]): item for item in items}
    kinds, rows = oracle.rows_of(tour.url, "select * from tour")
    texts = 0
    for row in rows:
        item = arrived[str(row["id"])]
        for name, text in row.items():
            assert (name in item) == (text is not None)
            if text is not None:
                try:
                    expected = oracle.value_of(kinds[name], text)
                    if oracle.levels(expected) > oracle.LEVELS:
                        expected = ("S", text)
                except oracle.Unrepresentable:
                    expected = ("S", text)
                    texts += 1
                assert item[name] == expected
    assert texts > 300


def test_a_script_can_put_rejected_rows_back(tour: Tour, stack: Stack, unique: str, tmp_path: Path) -> None:
    command_line = CommandLine.on(stack, tour.url, tmp_path)
    arguments = ("extract", "--table", "tour", "--cache", unique, "--rejects-file", "rejects", "--quiet")
    command_line(*arguments, code=3)
    again = f"again_{secrets.token_hex(4)}"
    with psycopg.connect(tour.url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(sql.SQL("create table {} (like tour)").format(sql.Identifier(again)))
        ids = []
        for line in (tmp_path / "rejects").read_text().splitlines():
            reject = json.loads(line)
            ids.append(reject["row"]["id"])
            connection.execute(
                sql.SQL("insert into {} ({}) values ({})").format(
                    sql.Identifier(again),
                    sql.SQL(", ").join(map(sql.Identifier, reject["row"])),
                    sql.SQL(", ").join(sql.SQL(f"%s::{reject['types'][name]}") for name in reject["row"]),
                ),
                list(reject["row"].values()),
            )
    (_, rows), (_, put_back) = (
        oracle.rows_of(tour.url, f"select * from {table} where id in ({', '.join(ids)}) order by id")
        for table in ("tour", again)
    )
    assert list(put_back) == list(rows)
    assert len(ids) > 200


def test_what_has_no_order_is_what_postgresql_cannot_order(tour: Tour) -> None:
    unordered = set()
    with psycopg.connect(tour.url, autocommit=True) as connection:
        columns = [column.name for column in describe(tour.url, "tour").columns]
        for name in columns:
            try:
                connection.execute(sql.SQL("select from tour order by {} limit 0").format(sql.Identifier(name)))
            except psycopg.errors.UndefinedFunction:
                unordered.add(name)
    # That one is an array to ORDER BY, and to nothing else.
    assert describe(tour.url, "tour").unordered == unordered | {"int2vector", "int2vector[]"}
    assert unordered >= {"json", "point", "json[]", "polygon[]", "whole", "wholes"}
