"""Secrets that AWS keeps, from the command line: over HTTP, asked for once and only where needed, and never told."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import conninfo

from etlcli.config import Surroundings, load_settings, require
from etlcli.config.references import parse
from etlcli.errors import AuthenticationError, ConfigError, Unavailable
from etlcli.progress import Counters
from etlcli.secrets.store import AwsSecrets
from etlcli.wiring import open_source
from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.vault import Vault, vault

MASK_KEY = "PLANTED mask & key"
WRONG = "PLANTED-wrong-secret"

CONFIG = """
[source]
url = "ssm:/{0}/url"
password = "secretsmanager:{0}/db#password"
[cache]
local = "ssm:/{0}/momento"
[destination]
region = "us-east-1"
[tables.films]
mask = {{ title = "hmac" }}
mask_key = "secretsmanager:{0}/db#mask"
"""


@pytest.fixture(scope="module")
def store() -> Iterator[Vault]:
    with vault() as made:
        yield made


@pytest.fixture
def prefix(store: Vault) -> str:
    """Names of a test's own."""
    store.asked.clear()
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture
def line(forked: CommandLine, store: Vault, prefix: str, stack: Stack, schema: Schema) -> CommandLine:
    """Commands whose config refers to all that they need."""
    schema.execute(
        "create table films (id integer primary key, title text); insert into films values (1, 'a'), (2, 'b')"
    )
    parameters = conninfo.conninfo_to_dict(schema.url)
    password = parameters.pop("password")
    store.parameter(f"/{prefix}/url", conninfo.make_conninfo("", **parameters))
    store.parameter(f"/{prefix}/momento", stack.momento, "String")
    store.secret(f"{prefix}/db", json.dumps({"user": "x", "password": password, "mask": MASK_KEY}))
    (forked.folder / "momento-etl.toml").write_text(CONFIG.format(prefix))
    clear = dict.fromkeys(("DATABASE_URL", "MOMENTO_LOCAL", "AWS_REGION"))
    made = forked.given(**clear, **store.variables)
    return CommandLine(
        made.environment, made.folder, (*made.secrets, MASK_KEY, WRONG, "PLANTED"), made.more, made.mortals
    )


def config_of(line: CommandLine, text: str) -> None:
    (line.folder / "momento-etl.toml").write_text(text)


# Where all goes well.


def test_each_command_asks_once_for_what_it_needs(line: CommandLine, store: Vault, prefix: str, unique: str) -> None:
    to = ("--table", "films", "--cache", unique, "--destination", unique)
    url, db, momento = f"GetParameter /{prefix}/url", f"GetSecretValue {prefix}/db", f"GetParameter /{prefix}/momento"
    for command, expected in (
        (("doctor", *to[:2]), [url, db, momento]),
        (("plan", *to), [url, db, momento]),
        (("run", *to), [url, db, momento]),
        (("extract", *to[:4]), [url, db, momento]),
        (("load", *to), [momento]),
        (("inspect-cache", "films", *to[2:4]), [momento]),
        (("verify", *to, "--source"), [url, db]),
        (("history",), []),
    ):
        store.asked.clear()
        line(*command, "--verbose")
        assert sorted(store.asked) == sorted(expected), command


def test_a_load_needs_no_right_to_the_sources_secrets(
    line: CommandLine, store: Vault, prefix: str, unique: str
) -> None:
    to = ("--table", "films", "--cache", unique)
    line("extract", *to)
    denied = (400, "AccessDeniedException", "User: ada is not authorized")
    store.faults |= {f"/{prefix}/url": denied, f"{prefix}/db": denied}
    line("load", *to, "--destination", unique)
    # Nor does what helps out only where the cache has lost something.
    line("verify", *to, "--destination", unique)
    assert "ssm:GetParameter" in line.fails("extract", *to, code=2).json["error"]["hint"]


def test_the_doctor_tells_which_secret_cannot_be_had(line: CommandLine, store: Vault, prefix: str) -> None:
    store.faults |= {f"/{prefix}/url": (400, "AccessDeniedException", "User: ada is not authorized")}
    checks = line("doctor", "--output", "json", code=1).json["checks"]
    (failed,) = (check for check in checks if check["status"] == "failed" and check["endpoint"] == "source")
    assert failed["name"] == "configured"
    assert "ssm:GetParameter" in failed["hint"]
    assert any(check["endpoint"] == "cache" and check["name"] == "login" for check in checks)


def test_a_source_for_once_is_a_reference_too_and_gets_no_password_of_another(
    line: CommandLine, store: Vault, prefix: str, schema: Schema
) -> None:
    store.parameter(f"/{prefix}/other", schema.url)
    line("plan", "--table", "films", "--source", f"ssm:/{prefix}/other")
    assert f"GetParameter /{prefix}/url" not in store.asked
    parameters = conninfo.conninfo_to_dict(schema.url)
    parameters.pop("password")
    error = line.fails("plan", "--table", "films", "--source", conninfo.make_conninfo("", **parameters), code=1).json
    assert "no password supplied" in error["error"]["message"]


def test_a_whole_run_of_a_process_of_its_own(line: CommandLine, unique: str) -> None:
    alone = CommandLine(line.environment, line.folder, line.secrets, line.more)
    summary = alone("run", "--table", "films", "--cache", unique, "--destination", unique, "--output", "json").json
    assert (summary["rows_loaded"], summary["status"]) == (2, "succeeded")


def test_versions_labels_and_arns(store: Vault, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known(store, monkeypatch)
    for value in ("first", "second", "third"):
        store.parameter(f"/{prefix}/v", value)
    store.client("ssm").label_parameter_version(Name=f"/{prefix}/v", ParameterVersion=2, Labels=["live"])
    elsewhere = store.secret(f"{prefix}/there", "far away", region="eu-west-3")
    find = AwsSecrets()
    here = Surroundings("us-east-1")
    assert find(parse(f"ssm:/{prefix}/v"), here) == "third"
    assert find(parse(f"ssm:/{prefix}/v:1"), here) == "first"
    assert find(parse(f"ssm:/{prefix}/v:live"), here) == "second"
    assert find(parse(f"secretsmanager:{elsewhere}"), here) == "far away"
    with pytest.raises(ConfigError, match="there is no such secret in Secrets Manager in us-east-1"):
        find(parse(f"secretsmanager:{prefix}/there"), here)


def test_a_secret_that_was_rotated_is_read_again(store: Vault, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known(store, monkeypatch)
    store.parameter(f"/{prefix}/v", "before")
    find, wanted, here = AwsSecrets(), parse(f"ssm:/{prefix}/v"), Surroundings("us-east-1")
    assert find(wanted, here) == "before"
    store.parameter(f"/{prefix}/v", "after")
    assert find(wanted, here) == "before"
    find.forget()
    assert find(wanted, here) == "after"


def test_a_process_that_lives_on_gets_in_again_after_a_rotation(
    store: Vault, prefix: str, schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(store, monkeypatch)
    parameters = conninfo.conninfo_to_dict(schema.url)
    right = parameters.pop("password")
    store.parameter(f"/{prefix}/password", WRONG)
    file = tmp_path / "config.toml"
    file.write_text(f'[source]\nurl = "env:URL"\npassword = "ssm:/{prefix}/password"\n')
    environ = {"URL": conninfo.make_conninfo("", **parameters), "AWS_REGION": "us-east-1"}
    kept = AwsSecrets()

    async def work() -> None:
        settings = require(load_settings(str(file), environ=environ, resolver=kept), source=True)
        async with open_source(settings, Counters()).snapshot():
            pass

    with pytest.raises(AuthenticationError) as caught:
        asyncio.run(work())
    assert WRONG not in f"{caught.value.message} {caught.value.hint}"
    store.parameter(f"/{prefix}/password", str(right))
    with pytest.raises(AuthenticationError):
        asyncio.run(work())
    kept.forget()
    asyncio.run(work())
    assert store.asked == [f"GetParameter /{prefix}/password"] * 2


def known(store: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process in."""
    for name, value in (*store.variables.items(), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(name, value)


# Where something is wrong.

KMS = "The ciphertext refers to a key that ada may not use: kms:Decrypt"


@pytest.mark.parametrize(
    ("fault", "code", "said", "hint"),
    [
        ((400, "ParameterNotFound", ""), 2, "there is no such SSM parameter in us-east-1", "aws ssm put-parameter"),
        ((400, "ParameterVersionNotFound", ""), 2, "no such version or label", "get-parameter-history"),
        ((400, "AccessDeniedException", "ada may not ssm:GetParameter"), 2, "may not read it", "ssm:GetParameter"),
        ((400, "AccessDeniedException", KMS), 2, "may not be decrypted", "kms:Decrypt"),
        ((400, "InvalidKeyId", "the key is disabled"), 2, "may not be decrypted", "kms:Decrypt"),
        ((400, "ValidationException", "bad name"), 2, "AWS refuses it", "Check the name"),
        ((400, "UnrecognizedClientException", f"token {WRONG}"), 2, "does not accept the credentials", "access key"),
        ((400, "ExpiredTokenException", WRONG), 2, "does not accept the credentials", "expired"),
        (b'{"Parameter": {"Type": "SecureString", "Value": " "}}', 2, "is empty", "value"),
    ],
)
def test_parameters_that_cannot_be_had(
    line: CommandLine,
    store: Vault,
    prefix: str,
    fault: tuple[int, str, str] | bytes,
    code: int,
    said: str,
    hint: str,
) -> None:
    store.faults[f"/{prefix}/url"] = fault
    error = line.fails("plan", "--table", "films", code=code).json["error"]
    assert f"line 3: `url` in [source]: ssm:/{prefix}/url" in error["message"]
    assert said in error["message"]
    assert hint in error["hint"]


@pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        ((400, "ResourceNotFoundException", ""), "there is no such secret", "aws secretsmanager create-secret"),
        ((400, "AccessDeniedException", "no"), "may not read it", "secretsmanager:GetSecretValue"),
        ((400, "AccessDeniedException", "no"), "may not read it", "kms:Decrypt"),
        ((400, "DecryptionFailure", "the key is gone"), "may not be decrypted", "kms:Decrypt"),
        ((400, "InvalidRequestException", "it was marked for deletion"), "marked for deletion", "name"),
        (b'{"SecretBinary": "UExBTlRFRA=="}', "is a binary secret", "text"),
        (b'{"SecretString": "PLANTED"}', "is not a JSON object", "Refer to all of it"),
        (b'{"SecretString": "{\\"passwort\\": \\"PLANTED\\"}"}', "does not have", "passwort"),
        (b'{"SecretString": "{\\"password\\": \\"\\"}"}', "is empty", "value"),
    ],
)
def test_secrets_that_cannot_be_had(
    line: CommandLine, store: Vault, prefix: str, fault: tuple[int, str, str] | bytes, said: str, hint: str
) -> None:
    store.faults[f"{prefix}/db"] = fault
    error = line.fails("extract", "--table", "films", code=2).json["error"]
    assert f"line 4: `password` in [source]: secretsmanager:{prefix}/db#password" in error["message"]
    assert said in error["message"]
    assert hint in error["hint"]


def test_what_passes_by_itself(store: Vault, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known(store, monkeypatch)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    find, wanted, here = AwsSecrets(), parse(f"ssm:/{prefix}/v"), Surroundings("us-east-1")
    for fault in (
        (400, "ThrottlingException", "Rate exceeded"),
        (500, "InternalServerError", "oh"),
        (503, "Whatever", "oh"),
        b"<html>a page of a proxy's</html>",
        b"{}",
    ):
        store.asked.clear()
        store.faults[f"/{prefix}/v"] = fault
        with pytest.raises(Unavailable, match=f"^ssm:/{prefix}/v: ") as caught:
            find(wanted, here)
        assert caught.value.hint
        assert 1 <= len(store.asked) <= 4
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"no good answer from http://127\.0\.0\.1:1") as caught:
        find(wanted, here)
    assert "VPC" in (caught.value.hint or "")


def test_no_answer_from_the_command_line(line: CommandLine) -> None:
    away = line.given(AWS_ENDPOINT_URL_SSM="http://127.0.0.1:1").changing({"etlcli.secrets.asking._ATTEMPTS": 1})
    error = away.fails("plan", "--table", "films", code=1).json["error"]
    assert "`url` in [source]: ssm:/" in error["message"]


def test_half_an_aws_configuration(line: CommandLine, tmp_path: Path, prefix: str) -> None:
    text = (line.folder / "momento-etl.toml").read_text()
    nobody = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    plan = ("plan", "--table", "films")
    assert "no AWS credentials are found" in line.given(**nobody).fails(*plan, code=2).json["error"]["message"]
    half = line.given(AWS_SECRET_ACCESS_KEY=None)
    assert "half of the AWS credentials" in half.fails(*plan, code=2).json["error"]["message"]
    unknown = line.given(AWS_PROFILE="nosuch")
    assert "no such AWS profile: nosuch" in unknown.fails(*plan, code=2).json["error"]["message"]
    config_of(line, text.replace('region = "us-east-1"', ""))
    assert "no AWS region is set" in line.fails(*plan, code=2).json["error"]["message"]
    config_of(line, text.replace("us-east-1", "no region"))
    assert "as it is set up" in line.fails(*plan, code=2).json["error"]["message"]
    assert not list(tmp_path.glob("*.rejects*"))
    assert prefix


def test_a_secret_that_postgresql_does_not_take(line: CommandLine, store: Vault, prefix: str) -> None:
    store.faults[f"{prefix}/db"] = json.dumps({"SecretString": json.dumps({"password": WRONG, "mask": "x"})}).encode()
    for form in (("--verbose",), ("--output", "json")):
        result = line("plan", "--table", "films", *form, code=1)
        assert "refused the login" in result.err
    store.faults[f"/{prefix}/url"] = json.dumps({"Parameter": {"Type": "String", "Value": WRONG}}).encode()
    error = line.fails("plan", "--table", "films", code=2).json["error"]
    assert "has to be a PostgreSQL address such as" in error["message"]
    url = f"postgresql://me:{WRONG}@127.0.0.1:1/x"
    store.faults[f"/{prefix}/url"] = json.dumps({"Parameter": {"Type": "SecureString", "Value": url}}).encode()
    error = line.fails("plan", "--table", "films", code=2).json["error"]
    assert "two passwords" in error["message"]
