"""What AWS keeps: asked for once, its fields taken apart, forgotten on demand, and never told."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from etlcli.config.references import Reference, Surroundings, parse
from etlcli.errors import ConfigError, Unavailable
from etlcli.hidden import masked
from etlcli.secrets import asking
from etlcli.secrets.store import AwsSecrets

HERE = Surroundings("eu-west-1", None)
SECRET = "PLANTED-s3cret"


class Aws:
    """Answers in AWS's place."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.asked: Counter[str] = Counter()
        self.failure: Exception | None = None

    def __call__(self, reference: Reference, _: Surroundings) -> str:
        self.asked[reference.name] += 1
        if self.failure is not None:
            raise self.failure
        return self.values[reference.name]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    made = Aws(db='{"user": "etl", "password": "PLANTED-s3cret", "port": 5432, "scale": 1.50, "tls": true}', url="u:p")
    monkeypatch.setattr(asking, "ask", made)
    return made


def find(secrets: AwsSecrets, text: str, surroundings: Surroundings = HERE) -> str:
    return secrets(parse(text), surroundings)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("secretsmanager:db#password", SECRET),
        ("secretsmanager:db#port", "5432"),
        ("secretsmanager:db#scale", "1.50"),
        ("secretsmanager:db#tls", "true"),
        ("ssm:url", "u:p"),
        ("secretsmanager:url", "u:p"),
    ],
)
def test_what_a_reference_stands_for(aws: Aws, text: str, value: str) -> None:
    assert find(AwsSecrets(), text) == value
    assert aws.asked.total() == 1


def test_one_secret_is_asked_for_once_until_it_is_forgotten(aws: Aws) -> None:
    secrets = AwsSecrets()
    for _ in range(3):
        assert find(secrets, "secretsmanager:db#user") == "etl"
        assert find(secrets, "secretsmanager:db#password") == SECRET
    assert aws.asked == {"db": 1}
    aws.values["db"] = '{"user": "etl2", "password": "PLANTED-rotated"}'
    assert find(secrets, "secretsmanager:db#user") == "etl"
    secrets.forget()
    assert find(secrets, "secretsmanager:db#user") == "etl2"
    assert find(secrets, "secretsmanager:db#password") == "PLANTED-rotated"
    assert aws.asked == {"db": 2}
    # The old one is still somebody's, and both stay out of output.
    assert masked(f"{SECRET} PLANTED-rotated") == "*** ***"


def test_the_same_name_elsewhere_is_another_value(aws: Aws) -> None:
    secrets = AwsSecrets()
    find(secrets, "ssm:url")
    find(secrets, "secretsmanager:url")
    find(secrets, "ssm:url", Surroundings("eu-west-2", None))
    find(secrets, "ssm:url", Surroundings("eu-west-1", "other"))
    assert aws.asked == {"url": 4}


def test_a_failure_is_not_kept(aws: Aws) -> None:
    secrets = AwsSecrets()
    aws.failure = Unavailable("no answer")
    with pytest.raises(Unavailable):
        find(secrets, "ssm:url")
    aws.failure = None
    assert find(secrets, "ssm:url") == "u:p"


def test_many_threads_ask_once(aws: Aws) -> None:
    secrets, together = AwsSecrets(), threading.Barrier(8)

    def ask() -> str:
        together.wait(30)
        return find(secrets, "secretsmanager:db#password")

    with ThreadPoolExecutor(8) as pool:
        assert {each.result() for each in [pool.submit(ask) for _ in range(8)]} == {SECRET}
    assert aws.asked == {"db": 1}


@pytest.mark.parametrize(
    ("document", "said", "hint"),
    [
        (f'{{"user": "{SECRET}", "passwort": "x"}}', "names a field that the secret does not have", "user, passwort"),
        ("{}", "does not have", "none"),
        (SECRET, "the secret is not a JSON object", "Refer to all of it: secretsmanager:db."),
        (f'["{SECRET}"]', "not a JSON object", "Refer to all of it"),
        (f'"{SECRET}"', "not a JSON object", "Refer to all of it"),
        ("[" * 100_000, "not a JSON object", "Refer to all of it"),
        (f'{{"password": ["{SECRET}"]}}', "is a list, where a text or a number has to be", "in a field"),
        (f'{{"password": {{"x": "{SECRET}"}}}}', "is an object", "in a field"),
        ('{"password": null}', "is null", "in a field"),
        ('{"password": " "}', "is empty", "a value"),
        # A whole secret in the place of a name.
        (f'{{"{SECRET * 3}": 1}}', "does not have", "1, of other names"),
        ("{" + ", ".join(f'"f{n}": 1' for n in range(30)) + "}", "does not have", "f19 and 10 more"),
    ],
)
def test_fields_that_cannot_be_had(aws: Aws, document: str, said: str, hint: str) -> None:
    aws.values["db"] = document
    with pytest.raises(ConfigError) as caught:
        find(AwsSecrets(), "secretsmanager:db#password")
    assert caught.value.message.startswith("secretsmanager:db#password")
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
