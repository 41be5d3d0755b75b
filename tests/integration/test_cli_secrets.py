"""Secrets are planted wherever there can be any, and then all that a command leaves behind is searched for them.

That is stdout and stderr at every verbosity, files, the cache and the state table; when all goes well, and when each
of the services fails, or the program itself.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import boto3
import pytest
import zstandard
from aiohttp import web
from psycopg import conninfo, sql

from etlcli.local.momento.api_keys import ApiKeys
from etlcli.local.momento.refusals import UnauthenticatedError
from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.momento_cell import MomentoCell, legacy_key, momento_cell, v2_key
from tests.integration.mortal import Mortals
from tests.integration.responder import Responder

# What is odd in it has to be written in other ways in a URL, in JSON, in Python and in SQL.
PASSWORD = "PLANTED/p@ss:w%rd \"quoted\" 'é'\\"
WRONG = "PLANTED-wrong/p@ssword"
SIGNATURE = "PLANTED-v2-signature"
INNER_SIGNATURE = "PLANTED-legacy-signature"
AWS_SECRET = "PLANTED/aws+secret/key"
AWS_TOKEN = "PLANTED//session+token=="
MASK_KEY = "PLANTED mask & key"

V2 = v2_key(SIGNATURE)
LEGACY = legacy_key(INNER_SIGNATURE)
SENT_OF_LEGACY = json.loads(base64.b64decode(LEGACY))["api_key"]

# No word of any command begins so: wherever these are, somebody forgot something.
MARKER = "PLANTED"
SPELLED = re.compile(r"PLANTED|" + re.escape(base64.b64encode(b"PLANTED").decode().rstrip("=")[:8]))


def spellings(secret: str) -> set[str]:
    """A secret in all the ways in which it may be written."""
    ways = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), secret.encode().hex()}
    ways |= {repr(way)[1:-1] for way in (secret, repr(secret))} | {json.dumps(secret)[1:-1]}
    return ways | {json.dumps(secret, ensure_ascii=False)[1:-1], base64.b64encode(secret.encode()).decode()}


PLANTED = frozenset().union(
    *map(spellings, (PASSWORD, WRONG, V2, LEGACY, SENT_OF_LEGACY, AWS_SECRET, AWS_TOKEN, MASK_KEY))
)


def assert_clean(text: str, where: str) -> None:
    found = {way for way in PLANTED if way in text}
    assert not found, f"{sorted(found)[:3]} in {where}:\n{text[:4000]}"
    assert MARKER not in text, f"a part of a secret in {where}:\n{text[:4000]}"


@dataclass(frozen=True)
class Place:
    """Where commands are run that know all secrets."""

    line: CommandLine
    cell: MomentoCell
    stack: Stack
    to: tuple[str, ...]
    url: str

    def everything_left(self) -> Iterator[tuple[str, str]]:
        """What is in the cache, in the state table, and in files that no user wrote."""
        for name in self.cell.server.store.names():
            for key, entry in self.cell.server.store.cache(name)._entries.items():
                assert isinstance(entry.value, bytes)
                yield f"the cache, {key.decode()}", _opened(key + b" " + entry.value)
        client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            endpoint_url=self.stack.dynamodb_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        for table in (self.line.variables()["MOMENTO_ETL_STATE_TABLE"], self.to[-1]):
            with suppress(client.exceptions.ResourceNotFoundException):
                for item in client.scan(TableName=table)["Items"]:
                    yield f"table {table}", json.dumps(item, ensure_ascii=False, default=str)
        client.close()
        for path in self.line.folder.rglob("*"):
            if path.is_file() and path.suffix not in {".pem", ".py", ".pyc", ".toml", ".ini"}:
                yield path.name, path.read_text()


def _opened(stored: bytes) -> str:
    """What was stored, and what is compressed in it."""
    place = stored.find(b"\x28\xb5\x2f\xfd")
    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(stored[place:]) if place >= 0 else b""
    return (stored + unpacked).decode(errors="replace")


class Gatekeeper(ApiKeys):
    """Tells whom it does not let in what it was shown."""

    def check(self, metadata: Mapping[str, Any]) -> None:
        if self.accepted is not None and metadata.get("authorization") not in self.accepted:
            raise UnauthenticatedError(f"nobody is called {metadata.get('authorization')}, of {dict(metadata)!r}")


CONFIG = """
[source]
url = "env:SOURCE_URL"

[cache]
api_key = "env:MOMENTO_KEY"

[tables.films]
mask = { title = "hmac" }
mask_key = "env:FILMS_KEY"
"""


@pytest.fixture
def place(stack: Stack, schema: Schema, unique: str, tmp_path: Path, mortals: Mortals) -> Iterator[Place]:
    """A role of PostgreSQL's and a cell of Momento's with secrets to be let in by, and a config that refers to more."""
    role = f"r_{secrets.token_hex(5)}"
    schema.execute(
        "create table films (id integer primary key, title text, rating float8);"
        " insert into films select n, 'film', n from generate_series(1, 30) n;"
        " insert into films values (31, 'bad', 'NaN')"
    )
    name = sql.Identifier(role)
    schema.connection.execute(
        sql.SQL("create role {} login password {}; grant usage on schema {} to {}; grant select on films to {}").format(
            name, sql.Literal(PASSWORD), sql.Identifier(schema.name), name, name
        )
    )
    parts = conninfo.conninfo_to_dict(stack.postgres_url)
    there = f"{parts['host']}:{parts['port']}/{parts['dbname']}?options=-csearch_path%3D{schema.name}"
    (tmp_path / "momento-etl.toml").write_text(CONFIG)
    url = f"postgresql://{role}:{quote(PASSWORD, safe='')}@{there}"
    with momento_cell(tmp_path, Gatekeeper(frozenset({V2, SENT_OF_LEGACY}))) as cell:
        environment = {
            **cell.variables,
            "SOURCE_URL": url,
            "MOMENTO_KEY": V2,
            "FILMS_KEY": MASK_KEY,
            "AWS_ENDPOINT_URL_DYNAMODB": stack.dynamodb_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
            "AWS_SESSION_TOKEN": AWS_TOKEN,
            "MOMENTO_ETL_STATE_TABLE": f"state-{unique}",
        }
        line = CommandLine(environment, tmp_path, (*sorted(PLANTED), MARKER), mortals=mortals)
        yield Place(line, cell, stack, ("--table", "films", "--cache", unique, "--destination", unique), url)
    schema.connection.execute(sql.SQL("drop owned by {}; drop role {}").format(name, name))


def test_nothing_is_left_where_all_goes_well(place: Place) -> None:
    line, to = place.line, place.to
    line("doctor", *to[:2], "--verbose", "--log-file", "doctor.log")
    line("plan", *to, "--verbose", code=3)
    line("run", *to, "--verbose", "--rejects-file", "rejects.jsonl", "--log-file", "run.log", code=3)
    elsewhere = line.given(
        MOMENTO_KEY=LEGACY,
        MOMENTO_ENDPOINT=None,
        SOURCE_URL=place.url.replace(f":{quote(PASSWORD, safe='')}", ""),
        PGPASSWORD=PASSWORD,
    )
    elsewhere("extract", *to[:4], "--verbose", "--output", "jsonl", code=3)
    line("load", *to, "--verbose", "--output", "json", code=3)
    line("verify", *to, "--source", "--verbose", "--output", "json")
    line("inspect-cache", "films", *to[2:4], "--rejects", "--verbose")
    line("history", "--verbose", "--output", "json")
    left = dict(place.everything_left())
    # It was looked into what is packed, and rejects and documents are among what was found.
    assert any('"title":{"S":"' in text and "/chunk/" in text for text in left.values())
    assert any("/manifest" in where for where in left)
    assert any("/rejects/" in where for where in left)
    assert {"rejects.jsonl", "doctor.log", "run.log"} <= left.keys()
    for where, text in left.items():
        assert_clean(text, where)


def test_a_first_config_has_none(place: Place) -> None:
    given = ("--source", place.url, "--momento-key", V2, "--config", "first.toml")
    wrong = f"host=h password='{WRONG}' dbname=d"
    for more in (("--yes",), given, ("--source", wrong, "--momento-key", LEGACY, "--config", "first.toml")):
        place.line.given(DATABASE_URL=place.url, MOMENTO_API_KEY=V2)("init", *more, "--force", "--verbose")
        assert_clean(
            (place.line.folder / ("first.toml" if "--config" in more else "momento-etl.toml")).read_text(), "it"
        )


class Gossip(Responder):
    """A DynamoDB, or what stands before it, that tells the request's headers back.

    Args:
        status: The status of its answers.
        code: DynamoDB's code; None for an answer that is not DynamoDB's.

    Attributes:
        told: All that it has told.
    """

    def __init__(self, status: int, code: str | None) -> None:
        super().__init__()
        self.told = ""
        self._status = status
        self._code = code

    async def _answer(self, request: web.Request) -> web.Response:
        headers = "\n".join(f"{name.lower()}:{value}" for name, value in request.headers.items() if "PLANTED" in value)
        self.told += headers
        if self._code is None:
            return web.Response(status=self._status, text=f"<pre>{headers}</pre>")
        document = {"__type": f"com.amazon.coral.service#{self._code}", "message": f"The Canonical String is {headers}"}
        return web.Response(status=self._status, text=json.dumps(document), content_type="application/x-amz-json-1.0")


SABOTAGE = """
from etlcli import pipeline

def fail(*_, **__):
    try:
        raise KeyError(SECRETS)
    except KeyError as error:
        raise RuntimeError("with " + " and ".join(SECRETS)) from error

pipeline.PLACE = fail

def change(item):
    return item
"""


FORMS = (("--verbose", "--output", "json"), ())


def in_each_form(line: CommandLine, *arguments: str, code: int) -> str:
    """Run a command that fails, in each form that it answers in: whatever it says is searched for secrets.

    Returns:
        What was said.
    """
    results = [line(*arguments, *form, code=code) for form in FORMS]
    assert all(re.search("^error: ", result.err, re.MULTILINE) for result in results), str(results[0])
    assert all(("Traceback" in result.err) == ("--verbose" in result.arguments) for result in results), str(results[0])
    return "\n".join(map(str, results))


# Nobody answers there, and that is found out soon.
IMPATIENT = {f"etlcli.{module}.FIRST_CONTACT_SECONDS": 0.1 for module in ("retry", "cache.momento")}
NOBODY = "127.0.0.1:1"


def test_nothing_is_said_where_postgresql_fails(place: Place) -> None:
    line, run = place.line, ("run", *place.to)
    parts = conninfo.conninfo_to_dict(place.url)
    here = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
    in_words = f"host={parts['host']} port={parts['port']} user={parts['user']} dbname={parts['dbname']}"
    for url, password in (
        (f"postgresql://{parts['user']}:{quote(WRONG, safe='')}@{here}", None),
        (f"postgresql://{parts['user']}@{here}", WRONG),
        (f"postgresql://{parts['user']}@{here}?password={quote(WRONG)}", None),
        (f"{in_words} password='{WRONG}'", None),
    ):
        said = in_each_form(line.given(SOURCE_URL=url, PGPASSWORD=password), *run, code=1)
        assert "password authentication failed" in said
    # A slash has to be encoded: without that libpq looks for a host and a port in it.
    said = in_each_form(line.given(SOURCE_URL=f"postgresql://u:{WRONG}@{here}"), *run, code=2)
    assert "the source's URL is malformed" in said
    nowhere = place.url.replace(f"{parts['host']}:{parts['port']}", NOBODY)
    assert "cannot be reached" in in_each_form(line.given(SOURCE_URL=nowhere).changing(IMPATIENT), *run, code=1)


def test_nothing_is_said_where_momento_fails(place: Place) -> None:
    line, run = place.line, ("run", *place.to)
    place.cell.server.api_keys.only("another")
    legacy = {"MOMENTO_KEY": LEGACY, "MOMENTO_ENDPOINT": None}
    assert "nobody is called ***" in in_each_form(line, *run, code=1)
    assert "nobody is called ***" in in_each_form(line.given(**legacy), *run, code=1)
    assert "does not hold a Momento API key" in in_each_form(line.given(MOMENTO_KEY=V2[:-40]), *run, code=2)
    assert "another endpoint" in in_each_form(line.given(MOMENTO_KEY=LEGACY, MOMENTO_ENDPOINT="x.y"), *run, code=2)
    away = line.given(grpc_proxy=f"http://{NOBODY}").changing(IMPATIENT)
    assert "may gRPC (HTTP/2) pass" in in_each_form(away, *run, code=1)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "InvalidSignatureException"), (400, "ValidationException"), (403, None)]
)
def test_nothing_is_said_where_dynamodb_fails(place: Place, status: int, code: str | None) -> None:
    file = place.line.folder / "credentials.ini"
    file.write_text(
        f"[default]\naws_access_key_id = test\naws_secret_access_key = {AWS_SECRET}\naws_session_token = {AWS_TOKEN}\n"
    )
    variables = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    with Gossip(status, code) as gossip:
        line = place.line.given(AWS_ENDPOINT_URL_DYNAMODB=gossip.url)
        for way in (line, line.given(**variables, AWS_SHARED_CREDENTIALS_FILE=str(file))):
            said = in_each_form(way, "run", *place.to, code=1)
            # It was told, and where its words are shown it is not in them.
            assert AWS_TOKEN in gossip.told
            assert code == "InvalidSignatureException" or "x-amz-security-token:***" in said


def test_nothing_is_said_where_dynamodb_is_not_there(place: Place) -> None:
    away = place.line.given(AWS_ENDPOINT_URL_DYNAMODB=f"http://{NOBODY}")
    assert "can be reached from here" in in_each_form(away.changing(IMPATIENT), "run", *place.to, code=1)
    named = place.line.given(AWS_ENDPOINT_URL_DYNAMODB=f"http://user:{quote(WRONG, safe='')}@{NOBODY}")
    assert "has a user's name in it" in in_each_form(named, "run", *place.to, code=2)
    with Responder(deny=["DescribeTable"]) as responder:
        denied = place.line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        assert "is not authorized to perform" in in_each_form(denied, "run", *place.to, code=1)


@pytest.mark.parametrize("where", ["open_and_plan", "prepare_table", "settle"])
def test_nothing_is_said_where_the_program_itself_fails(place: Place, where: str) -> None:
    line = place.line
    known = [PASSWORD, quote(PASSWORD, safe=""), place.url, V2, AWS_SECRET, AWS_TOKEN, MASK_KEY]
    (line.folder / "sabotage.py").write_text(f"SECRETS = {known!r}\n{SABOTAGE.replace('PLACE', where)}")
    (line.folder / "momento-etl.toml").write_text(CONFIG + 'transform = "sabotage:change"\n')
    said = in_each_form(line, "run", *place.to, code=1)
    assert "momento-etl itself failed: RuntimeError" in said
    assert "KeyError: ['***', '***'" in said  # what it was made from, too
    for found, text in place.everything_left():
        assert_clean(text, found)


def test_what_a_transform_raises_is_a_reject_without_them(place: Place) -> None:
    line = place.line
    (line.folder / "telling.py").write_text(
        f"def change(item):\n    raise ValueError({[AWS_TOKEN, V2, PASSWORD]!r}, item['id'])\n"
    )
    (line.folder / "momento-etl.toml").write_text(CONFIG + 'transform = "telling:change"\n')
    line("run", *place.to, "--verbose", "--output", "json", code=3)
    line("inspect-cache", "films", *place.to[2:4], "--rejects", "--verbose")
    left = dict(place.everything_left())
    told = [where for where, text in left.items() if "raised ValueError" in text]
    assert any("/rejects/" in where for where in told)
    assert any(where.endswith(".rejects.jsonl") for where in told)
    for where, text in left.items():
        assert_clean(text, where)


MISPLACED = {
    "MOMENTO_ENDPOINT": V2,
    "AWS_REGION": AWS_SECRET,
    "AWS_ENDPOINT_URL_DYNAMODB": AWS_TOKEN,
    "MOMENTO_KEY": quote(PASSWORD),
    "SOURCE_URL": V2,
    "AWS_PROFILE": AWS_SECRET,
    "MOMENTO_ETL_CACHE_TTL": AWS_SECRET,
    "MOMENTO_ETL_STATE_TABLE": AWS_SECRET,
}
# What is wrong with variables of our own is an error of every command.
MISREAD = {"MOMENTO_ETL_CACHE_TTL", "MOMENTO_ETL_STATE_TABLE"}


def test_the_doctor_tells_none(place: Place) -> None:
    line = place.line.changing(IMPATIENT)
    parts = conninfo.conninfo_to_dict(place.url)
    at = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
    look = ("doctor", "--table", "films", "--verbose", "--log-file", "doctor.log")
    line(*look, "--source", f"postgresql://{parts['user']}:{quote(WRONG, safe='')}@{at}", code=1)
    line(*look, "--source", f"postgresql://{parts['user']}:{WRONG}@{at}", code=1)
    for name, value in MISPLACED.items():
        result = line.given(**{name: value})(*look, code=2 if name in MISREAD else 1)
        assert "hint: " in result.out + result.err
    place.cell.server.api_keys.only("another")
    for status, code in ((400, "InvalidSignatureException"), (400, "ValidationException"), (403, None)):
        with Gossip(status, code) as gossip:
            line.given(AWS_ENDPOINT_URL_DYNAMODB=gossip.url)(*look, code=1)
            assert AWS_TOKEN in gossip.told
    for where, text in place.everything_left():
        assert_clean(text, where)


@pytest.mark.parametrize("variable", MISPLACED)
def test_a_secret_in_the_wrong_place_is_not_told(place: Place, variable: str) -> None:
    misplaced = place.line.given(**{variable: MISPLACED[variable]}).changing(IMPATIENT)
    result = misplaced("run", *place.to, "--verbose", "--output", "json", code=2)
    assert result.json["error"]["hint"], str(result)


def test_a_secret_under_the_wrong_name_is_not_told(place: Place) -> None:
    for text in (
        f'[source]\npassword = "{WRONG}"\n',
        f'[cache]\nendpoint = "{V2}"\n',
        f'[cache]\napi_kye = "{V2}"\n',
        f"[cache]\napi_key = {V2}\n",
        f'[cache]\nttl = "{LEGACY}"\n',
        f'api_key = "{V2}"\n',
        f'[destination]\nregion = ["{WRONG}"]\n',
        f'[tables.films]\nmask_key = ["{WRONG}"]\n',
    ):
        (place.line.folder / "momento-etl.toml").write_text(text)
        place.line("run", *place.to, "--verbose", "--output", "json", code=2)
