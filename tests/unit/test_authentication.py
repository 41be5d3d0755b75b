"""A password, key or credentials that a service does not take are told from all else by type, of every service."""

from __future__ import annotations

import psycopg
import pytest
from momento.errors import AuthenticationException, PermissionDeniedException, SdkException
from momento.internal.services import Service

from etlcli.cache.refusals import translated
from etlcli.errors import AuthenticationError, CacheError, EtlError, ExitCode, SinkError, SourceError
from etlcli.sink.translate import Place, error_for, judge
from etlcli.source.translate import connection_error, statement_error

AT = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: FATAL:  '


def of_connecting(text: str) -> EtlError:
    return connection_error(psycopg.OperationalError(AT + text), "db:5432")


def of_statement(state: str) -> EtlError:
    return statement_error(psycopg.errors.lookup(state)("told so"), "db:5432", "reading rows")


def of_dynamodb(code: str) -> EtlError:
    return error_for(judge(400, code), 400, code, "told so", place=Place("t", "https://x"), action="BatchWriteItem")


def of_momento(error: SdkException) -> EtlError:
    return translated(error, "told so", "cache c", 0, creating=False, was_there=True)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_connecting('password authentication failed for user "x"'), SourceError),
        (of_connecting('PAM authentication failed for user "x"'), SourceError),
        (of_connecting('role "x" does not exist'), SourceError),
        (of_connecting('role "x" is not permitted to log in'), SourceError),
        (of_connecting("no such user"), SourceError),
        (of_statement("28P01"), SourceError),
        (of_statement("28000"), SourceError),
        (of_dynamodb("UnrecognizedClientException"), SinkError),
        (of_dynamodb("InvalidSignatureException"), SinkError),
        (of_dynamodb("ExpiredTokenException"), SinkError),
        (of_momento(AuthenticationException("told so", Service.CACHE)), CacheError),
    ],
)
def test_who_is_not_let_in(error: EtlError, kind: type[EtlError]) -> None:
    assert isinstance(error, AuthenticationError)
    assert isinstance(error, kind)
    assert error.exit_code is ExitCode.FAILED
    assert error.hint
    assert error.of_service


@pytest.mark.parametrize(
    "error",
    [
        of_connecting('database "x" does not exist'),
        of_connecting('no pg_hba.conf entry for host "1.2.3.4", user "x"'),
        of_connecting("the database system is starting up"),
        of_statement("3D000"),
        of_statement("42501"),
        of_dynamodb("AccessDeniedException"),
        of_dynamodb("ValidationException"),
        of_momento(PermissionDeniedException("told so", Service.CACHE)),
    ],
)
def test_what_another_secret_would_not_cure(error: EtlError) -> None:
    assert not isinstance(error, AuthenticationError)
