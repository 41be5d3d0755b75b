"""What DynamoDB's error codes mean for us, in one place: for the write path's own posts and for boto3's exceptions.

The codes are those of the developer guide's "Error handling with DynamoDB", the API reference's "Common errors" and
botocore's retry rules (``botocore/data/_retry.json``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import orjson
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from etlcli.errors import ConfigError, EtlError, SinkError, SinkLoginError, Throttled, Unavailable
from etlcli.hidden import masked
from etlcli.throttling import Reason

__all__ = [
    "ForeignAnswer",
    "Place",
    "Verdict",
    "error_for",
    "from_boto",
    "judge",
    "own_document",
    "reasons_of",
    "text_of",
    "untrusted_certificate",
    "words_of",
]


class Verdict(Enum):
    """What to do after an error answer."""

    THROTTLED = auto()  # too fast: the same later, and count it
    PASSING = auto()  # passes by itself: the same later
    EXPIRED = auto()  # new credentials, then the same
    SPLIT = auto()  # something in the request is refused: halve it until it is found
    FINAL = auto()  # stays until somebody does something


class Place(NamedTuple):
    """Where an answer came from, for messages."""

    table: str
    endpoint: str

    def __str__(self) -> str:
        """As messages say it: ``table movies at https://dynamodb.eu-west-1.amazonaws.com``."""
        return f"table {self.table} at {self.endpoint}"


_VERDICTS = {
    Verdict.THROTTLED: (
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    ),
    Verdict.PASSING: (
        # Backups of a table that has just been made cannot be switched on for some seconds.
        "ContinuousBackupsUnavailableException",
        "InternalFailure",
        "InternalServerError",
        "ReplicatedWriteConflictException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "TransactionConflictException",
        "TransactionInProgressException",
    ),
    Verdict.EXPIRED: ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
    Verdict.SPLIT: (
        "ItemCollectionSizeLimitExceededException",
        "RequestEntityTooLarge",
        "RequestEntityTooLargeException",
        "RequestTooLargeException",
        "SerializationException",
        "ValidationException",
    ),
}
_VERDICT_OF = {code: verdict for verdict, codes in _VERDICTS.items() for code in codes}

_DENIED = {"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"}
_UNKNOWN_SIGNER = {
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MESSAGE_CHARACTERS = 300
_SHOWN_BYTES = 400

# Statuses of which DynamoDB's own always come with a code: without one, whatever stands before it wants something.
_REFUSALS_ON_THE_WAY = {
    401: "what stands before DynamoDB (a proxy, a gateway) wants a login",
    403: "a proxy or a firewall does not let this through: allow the endpoint there, or go another way (HTTPS_PROXY,"
    " NO_PROXY)",
    407: "the proxy wants a user and a password: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT",
}

# What http.client says of a proxy that does not let TLS through.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3}) ?(.*)")


def judge(status: int, code: str) -> Verdict:
    """Say what to do after an error answer.

    Args:
        status: The HTTP status.
        code: DynamoDB's error code without its namespace; empty where the answer was not DynamoDB's.
    """
    if code:
        return _VERDICT_OF.get(code, Verdict.PASSING if status >= 500 else Verdict.FINAL)
    # Something between here and DynamoDB has answered, or has cut or rewritten an answer.
    if status == 413:
        return Verdict.SPLIT
    if status == 429:
        return Verdict.THROTTLED
    return Verdict.FINAL if status in _REFUSALS_ON_THE_WAY else Verdict.PASSING


def own_document(status: int, body: bytes) -> dict[str, Any] | None:
    """Read an answer of DynamoDB's: a JSON object, which names an error unless all went well. None for any other."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) and (status == 200 or "__type" in document) else None


def text_of(body: bytes) -> str:
    """What an answer says that is not DynamoDB's, for a message."""
    return body[:_SHOWN_BYTES].decode(errors="replace").strip() or "an empty answer"


def words_of(document: Mapping[str, object]) -> tuple[str, str]:
    """Take code and message out of an error answer's body; both are empty where it has none."""
    # "com.amazonaws.dynamodb.v20120810#ValidationException"; the message's case varies with the service's layer.
    code = str(document.get("__type", "")).rpartition("#")[2]
    return code, str(document.get("message") or document.get("Message") or "")


def reasons_of(document: Mapping[str, object], table: str) -> tuple[Reason, ...]:
    """Take the reasons out of the body of a throttle on this table; empty where it gives none."""
    # ThrottlingException spells the member with a small letter, the others with a large one (API reference).
    listed = document.get("ThrottlingReasons") or document.get("throttlingReasons")
    return tuple(
        Reason(str(one["reason"]), str(one.get("resource") or "").rpartition(":table/")[2] or table)
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("reason")
    )


def error_for(
    verdict: Verdict,
    status: int,
    code: str,
    message: str,
    reasons: Sequence[Reason] = (),
    *,
    place: Place,
    action: str,
) -> EtlError:
    """Make the error that a user sees of an error answer, transient or terminal by its verdict.

    Args:
        verdict: What ``judge`` said.
        status: The HTTP status.
        code: DynamoDB's error code without its namespace; empty where the answer was not DynamoDB's.
        message: DynamoDB's own words.
        reasons: Those that it gave for a throttle.
        place: Which table, where.
        action: The API's name of what was asked, for example ``BatchWriteItem``.
    """
    said = f"{code}: {_short(message)}" if code else f"HTTP status {status}: {_short(message)}"
    match verdict:
        case Verdict.THROTTLED:
            known = reasons or [Reason(code or f"HTTP status {status}", place.table)]
            words = "; ".join(dict.fromkeys(map(str, known)))
            cures = "; or ".join(dict.fromkeys(reason.cure for reason in known))
            return Throttled(
                f"DynamoDB throttles {action} on {place}: {words}" + (f" ({_short(message)})" if message else ""),
                hint=f"{cures}; then run the same command: it resumes",
                reasons=known,
            )
        case Verdict.PASSING if not code and 300 <= status < 500:
            return Unavailable(
                f"what answers {action} on {place} does not speak DynamoDB ({said})",
                hint=_FOREIGN_HINT,
                of_service=True,
            )
        case Verdict.PASSING:
            return Unavailable(
                f"DynamoDB gives no good answer to {action} on {place} ({said})",
                hint="run the same command once the endpoint answers again: it resumes",
                of_service=True,
            )
        case Verdict.EXPIRED:
            return SinkLoginError(
                f"the AWS credentials have expired ({action} on {place})",
                hint="get new ones (for example: aws sso login), then run the same command: it resumes",
                of_service=True,
            )
        case Verdict.SPLIT:
            return SinkError(f"DynamoDB refuses {action} on {place} ({said})")
        case Verdict.FINAL:
            return _final(status, code, said, place, action)


def _final(status: int, code: str, said: str, place: Place, action: str) -> SinkError:
    if code in {"ResourceNotFoundException", "TableNotFoundException"}:
        return SinkError(
            f"{place} does not exist: it was deleted, or is being deleted",
            hint=f"create it (momento-etl create-table {place.table}), then run the same command",
        )
    if code in _DENIED:
        return SinkError(
            f"the AWS credentials in use may not call {action} on {place} ({said})",
            hint=f"allow them dynamodb:{action} on this table",
        )
    if code in _UNKNOWN_SIGNER:
        # DynamoDB's text is left out: on a wrong signature it quotes the request's headers, session token included.
        return SinkLoginError(
            f"DynamoDB does not accept the AWS credentials in use ({code}; {action} on {place})",
            hint="check the access key, its secret and the session token, that they belong to this endpoint and "
            "region, and this machine's clock",
            of_service=True,
        )
    if code == "LimitExceededException":
        return SinkError(
            f"the AWS account has reached a limit at {action} on {place} ({said})",
            hint="delete what is not needed, or ask AWS for a higher quota, then run the same command",
        )
    if not code:
        return SinkError(
            f"what answers {action} on {place} does not speak DynamoDB ({said})",
            hint=_REFUSALS_ON_THE_WAY.get(status, _FOREIGN_HINT),
            of_service=True,
        )
    return SinkError(f"DynamoDB refuses {action} on {place} ({said})")


_FOREIGN_HINT = "check the endpoint and, if one is set, HTTPS_PROXY"


def _short(text: str) -> str:
    line = masked(" ".join(text.split()))
    return line if len(line) <= _MESSAGE_CHARACTERS else line[:_MESSAGE_CHARACTERS] + "..."


def untrusted_certificate(place: Place, reason: object) -> SinkError:
    """Make the error for a TLS certificate that nobody trusted vouches for."""
    return SinkError(
        f"the TLS certificate of {place} is not trusted ({reason})",
        hint="behind a proxy that opens TLS, name its certificate authority: AWS_CA_BUNDLE=/path/to/ca.pem",
        of_service=True,
    )


class ForeignAnswer(ResponseParserError):  # noqa: N818  read as what came back
    """An answer to a boto3 client that is not DynamoDB's own, or arrived with damage.

    Args:
        status: The HTTP status.
        text: What it says.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def from_boto(error: BotoCoreError | ClientError | ResponseParserError, *, place: Place, action: str) -> EtlError:
    """Translate what a boto3 client raised into an error of ours."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code, message = details.get("Code", ""), details.get("Message", "")
        # botocore gives an error's own members beside what all errors have.
        reasons = reasons_of({**error.response, "__type": code}, place.table)
        return error_for(judge(status, code), status, code, message, reasons, place=place, action=action)
    if isinstance(error, ForeignAnswer):
        return error_for(judge(error.status, ""), error.status, "", str(error), place=place, action=action)
    if isinstance(error, ProxyConnectionError) and (refused := _TUNNEL.search(str(error.kwargs.get("error")))):
        status = int(refused[1])
        return error_for(judge(status, ""), status, "", refused[2], place=place, action=action)
    if isinstance(error, SSLError):
        return untrusted_certificate(place, error)
    if isinstance(error, BotoConnectionError | HTTPClientError | IncompleteReadError | ResponseParserError):
        return Unavailable(
            f"no good answer to {action} on {place} ({_short(str(error))})",
            hint="check that the endpoint can be reached from here",
            of_service=True,
        )
    return ConfigError(f"boto3 cannot call {action} on {place}: {_short(str(error))}")
