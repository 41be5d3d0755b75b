"""What a user hears of throttles: which limit, of what, and what to do about it; and not at the first of them."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError

from etlcli.errors import EtlError, Throttled
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.sink.batches import Problem, read_answer
from etlcli.sink.translate import Place, Verdict, error_for, from_boto
from etlcli.summary import summarize
from etlcli.throttling import Reason, count_throttle, throttle_warnings

PLACE = Place("movies", "http://127.0.0.1:1")
ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/movies"
# As the API reference spells them ("ThrottlingReason"): what, operation, limit.
LIMITS = {
    "KeyRangeThroughput": "one hot key range",
    "ProvisionedThroughput": "table limit",
    "MaxOnDemandThroughput": "table limit",
    "AccountLimit": "account limit",
}
CODES = [
    f"{what}{operation}{limit}Exceeded"
    for what, operation, limit in product(("Table", "Index"), ("Read", "Write"), LIMITS)
]


def body(code: str, *reasons: tuple[str, str], member: str = "ThrottlingReasons") -> bytes:
    listed = [{"reason": reason, "resource": resource} for reason, resource in reasons]
    document = {
        "__type": f"com.amazonaws.dynamodb.v20120810#{code}",
        "message": "Throughput exceeds it",
        member: listed,
    }
    return orjson.dumps(document)


def problem(answer: bytes) -> Problem:
    found = read_answer(400, answer, table="movies", sent=3)
    assert isinstance(found, Problem)
    assert found.verdict is Verdict.THROTTLED
    return found


def throttled(found: Problem) -> Throttled:
    error = error_for(*found, place=PLACE, action="BatchWriteItem")
    assert isinstance(error, Throttled)
    return error


@pytest.mark.parametrize("code", CODES)
def test_every_reason_has_words_and_a_cure(code: str) -> None:
    is_index, is_read = code.startswith("Index"), "Read" in code
    resource = f"{ARN}/index/by-title" if is_index else ARN
    error = throttled(problem(body("ProvisionedThroughputExceededException", (code, resource))))
    limit = next(words for part, words in LIMITS.items() if code.endswith(f"{part}Exceeded"))
    assert (limit in error.message) is not (is_index and limit == "table limit")
    assert ("an index's limit" in error.message) is is_index
    assert ("index by-title of table movies" if is_index else "on table movies") in error.message
    assert code in error.message
    assert ("read" if is_read else "write") in error.message
    assert "Throughput exceeds it" in error.message
    assert error.hint is not None
    assert error.hint.endswith("then run the same command: it resumes")
    assert ("--max-writes" in error.hint) is not is_read
    assert "CloudWatch" not in error.hint, "its limit is known"
    assert "123456789012" not in f"{error.message}{error.hint}", "the account is nobody's business"


@pytest.mark.parametrize(
    ("code", "member"),
    [
        ("ProvisionedThroughputExceededException", "ThrottlingReasons"),
        ("RequestLimitExceeded", "ThrottlingReasons"),
        # botocore's description of the service has this one with a small letter.
        ("ThrottlingException", "throttlingReasons"),
        ("ThrottlingException", "ThrottlingReasons"),
    ],
)
def test_reasons_are_found_in_every_exception(code: str, member: str) -> None:
    wanted = [("TableWriteKeyRangeThroughputExceeded", ARN), ("IndexWriteAccountLimitExceeded", f"{ARN}/index/x")]
    reasons = (
        Reason("TableWriteKeyRangeThroughputExceeded", "movies"),
        Reason("IndexWriteAccountLimitExceeded", "movies/index/x"),
    )
    answer = body(code, *wanted, member=member)
    assert problem(answer).reasons == reasons
    error = throttled(problem(answer))
    assert error.reasons == reasons
    assert "one hot key range" in error.message
    assert "account limit" in error.message
    # And as boto3 hands them on.
    response: Any = {
        "Error": {"Code": code, "Message": "so it is"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
        member: orjson.loads(answer)[member],
    }
    of_boto = from_boto(ClientError(response, "PutItem"), place=PLACE, action="PutItem")
    assert isinstance(of_boto, Throttled)
    assert of_boto.reasons == reasons


@pytest.mark.parametrize(
    "listed", [None, [], "none", [1], [{}], [{"resource": ARN}], {"reason": "TableWriteAccountLimitExceeded"}]
)
def test_without_reasons_it_is_said_that_there_are_none(listed: object) -> None:
    document = {"__type": "x#ThrottlingException", "ThrottlingReasons": listed}
    error = throttled(problem(orjson.dumps(document)))
    assert "no known reason (ThrottlingException on table movies)" in error.message
    assert "CloudWatch" in (error.hint or "")
    assert error.reasons == (Reason("ThrottlingException", "movies"),)


def test_a_reason_of_a_kind_to_come_is_shown_as_it_is() -> None:
    for code in ("TableWriteMoonPhaseExceeded", "Something new"):
        error = throttled(problem(body("ThrottlingException", (code, ""))))
        assert code in error.message
        assert error.reasons == (Reason(code, "movies"),)
        assert error.hint


def test_a_proxy_that_throttles_is_not_taken_for_dynamodb() -> None:
    found = read_answer(429, b"<html>", table="movies", sent=1)
    assert isinstance(found, Problem)
    assert "HTTP status 429" in throttled(found).message


def counted(*throttles: tuple[str, str, int], rows_loaded: int = 0) -> Counters:
    counters = Counters(rows_loaded=rows_loaded)
    for code, resource, count in throttles:
        for _ in range(count):
            count_throttle(counters, Throttled("slow", reasons=[Reason(code, resource)]))
    return counters


HOT = "TableWriteKeyRangeThroughputExceeded"
INDEX = "IndexWriteProvisionedThroughputExceeded"


def test_throttles_are_counted_by_reason_and_resource() -> None:
    counters = counted((HOT, "movies", 2), (INDEX, "movies/index/a", 1), (INDEX, "movies/index/b", 3))
    count_throttle(counters, Throttled("both", reasons=[Reason(HOT, "movies"), Reason(INDEX, "movies/index/a")]))
    count_throttle(counters, Throttled("Momento's"))
    assert counters.throttles == 8
    assert counters.throttle_reasons == {HOT: {"movies": 3}, INDEX: {"movies/index/a": 2, "movies/index/b": 3}}
    summary = summarize("run", Report("movies", counters=counters), 1.0)
    assert summary["throttle_reasons"] == counters.throttle_reasons
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    ("throttles", "rows_loaded", "warns"),
    [(0, 0, False), (1, 0, False), (19, 0, False), (20, 0, True), (20, 10_000, True), (20, 10_001, False)],
)
def test_it_takes_a_good_deal_of_throttles(throttles: int, rows_loaded: int, warns: bool) -> None:
    warnings = throttle_warnings(counted((HOT, "movies", throttles), rows_loaded=rows_loaded))
    assert len(warnings) == warns


def test_a_warning_names_the_limit_and_the_cure_the_most_frequent_first() -> None:
    counters = counted(("UnprocessedItems", "movies", 300), (HOT, "movies", 1200), (INDEX, "movies/index/a", 9))
    first, second = throttle_warnings(counters)
    assert first.startswith("DynamoDB throttled 1,200 requests: one hot key range")
    assert "To go faster, give the hash key more different values" in first
    assert second.startswith("DynamoDB throttled 300 requests: it left items unprocessed, for which it gives no reason")
    assert "CloudWatch" in second
    for warning in (first, second):
        assert "--max-writes" in warning
        assert warning.endswith(".")


@pytest.mark.parametrize("error", [None, EtlError("over", hint="h")])
def test_the_summary_warns(error: EtlError | None) -> None:
    report = Report("movies", counters=counted((HOT, "movies", 50)))
    report.warnings.append("look")
    for _ in range(2):  # to ask for a summary twice changes nothing
        summary = summarize("run", report, 1.0, error=error)
        assert len(summary["warnings"]) == 2
        assert summary["warnings"][0] == "look"
        assert "one hot key range" in summary["warnings"][1]
