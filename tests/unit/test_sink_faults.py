"""The write path against a DynamoDB that misbehaves by script, over HTTP on loopback."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import ssl
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import orjson
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from etlcli.errors import EtlError, SinkError, Throttled, Unavailable
from etlcli.ports import Refusal
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings

T = TypeVar("T")
Item = dict[str, Any]
Step = Callable[["Call"], Awaitable[web.StreamResponse]]

QUICK = RetryPolicy(patience=30.0, base=0.001, ceiling=0.002)
HASTY = RetryPolicy(patience=0.0, base=0.001, ceiling=0.002)
SECRET = "wJalrXUtnFEMI-not-a-real-one"


class Call:
    """One request as the server got it."""

    def __init__(self, request: web.Request, body: bytes) -> None:
        self.request = request
        self.headers = request.headers
        self.body = body
        ((self.table, writes),) = orjson.loads(body)["RequestItems"].items()
        self.items: list[Item] = [write["PutRequest"]["Item"] for write in writes]


class Responder:
    """Answers each request with the script's next step, and once there is none, as DynamoDB at its best."""

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None, forever: Step | None = None) -> None:
        self.script = deque(script)
        self.forever = forever
        self.tls = tls
        self.calls: list[Call] = []
        self.stored: dict[str, Item] = {}
        self.url = ""

    async def __aenter__(self) -> Self:
        @web.middleware
        async def everything(request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ARG001  the name is aiohttp's
            return await self.answer(request)

        # No routes: as a proxy it is asked for whole URLs, which no route matches.
        app = web.Application(client_max_size=32 * 1024 * 1024, middlewares=[everything])
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}" if self.tls is None else f"https://localhost:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.runner.cleanup()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        call = Call(request, await request.read())
        self.calls.append(call)
        if self.script:
            return await self.script.popleft()(call)
        return await (self.forever or self.accept)(call)

    async def accept(self, call: Call) -> web.StreamResponse:
        for item in call.items:
            self.stored[item["id"]["N"]] = item
        return reply(200, {"UnprocessedItems": {}})

    @property
    def numbers(self) -> list[int]:
        return sorted(map(int, self.stored))


def reply(status: int, document: object, **headers: str) -> web.Response:
    body = orjson.dumps(document)
    return raw(status, body, **{"X-Amz-Crc32": str(zlib.crc32(body)), **headers})


def raw(status: int, body: bytes, **headers: str) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": "application/x-amz-json-1.0", **headers})


def error(code: str, message: str = "so it is", status: int = 400) -> Step:
    async def step(_call: Call) -> web.StreamResponse:
        return reply(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message})

    return step


def answers(status: int, body: bytes, **headers: str) -> Step:
    async def step(_call: Call) -> web.StreamResponse:
        return raw(status, body, **headers)

    return step


async def reset(call: Call) -> web.StreamResponse:
    assert call.request.transport is not None
    call.request.transport.abort()
    return web.Response()


async def cut(call: Call) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(call.request)
    await response.write(b'{"UnprocessedItems":{')
    assert call.request.transport is not None
    call.request.transport.close()
    return response


def unprocessed(responder: Responder, keep: Callable[[Item], bool]) -> Step:
    """Take the items that ``keep`` wants, and give the others back in a spelling of DynamoDB's own."""

    async def step(call: Call) -> web.StreamResponse:
        left = []
        for item in call.items:
            if keep(item):
                responder.stored[item["id"]["N"]] = item
            else:
                left.append({"PutRequest": {"Item": dict(sorted(item.items(), reverse=True))}})
        text = json.dumps({"UnprocessedItems": {call.table: left} if left else {}}, indent=1, ensure_ascii=True)
        return raw(200, text.encode())

    return step


def item(number: int, title: str = "Amélie") -> bytes:
    return orjson.dumps(
        {"id": {"N": str(number)}, "title": {"S": title}, "tags": {"L": [{"B": "AAE="}, {"NULL": True}]}}
    )


def items(count: int) -> list[bytes]:
    return [item(number) for number in range(count)]


def serve(
    responder: Responder,
    use: Callable[[DynamoDBSink], Awaitable[T]],
    *,
    counters: Counters | None = None,
    retry: RetryPolicy = QUICK,
    max_in_flight: int = 8,
    request_seconds: float = 20.0,
    static: bool = True,
) -> T:
    async def main() -> T:
        async with responder:
            settings = DynamoDBSettings(
                region="eu-west-1",
                endpoint_url=responder.url,
                access_key_id="AKIDSTATIC" if static else None,
                secret_access_key=SECRET if static else None,
            )
            counted = counters or Counters()
            async with DynamoDBSink(
                settings, "movies", counted, retry, max_in_flight, request_seconds=request_seconds
            ) as sink:
                before = asyncio.all_tasks()
                try:
                    return await use(sink)
                finally:
                    # The server's own tasks come and go; ours are those of the sink's code.
                    left = [task for task in asyncio.all_tasks() - before if "Writer" in repr(task)]
                    assert left == []
                    assert counted.requests_in_flight == 0

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_request_is_what_the_api_asks_for() -> None:
    responder = Responder()
    serve(responder, lambda sink: sink.put(items(3)))
    (call,) = responder.calls
    assert call.body == (
        b'{"RequestItems":{"movies":[{"PutRequest":{"Item":%b}},{"PutRequest":{"Item":%b}},{"PutRequest":{"Item":%b}}]}}'
        % tuple(items(3))
    )
    assert call.headers["X-Amz-Target"] == "DynamoDB_20120810.BatchWriteItem"
    assert call.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert call.headers["User-Agent"].startswith("momento-etl/")
    assert "Accept-Encoding" not in call.headers


@pytest.mark.parametrize("path", ["", "/", "/behind/a/gateway"])
def test_the_signature_is_botocores(path: str) -> None:
    responder = Responder()

    async def main() -> None:
        async with responder:
            settings = DynamoDBSettings(
                region="eu-west-1",
                endpoint_url=responder.url + path,
                access_key_id="AKIDSTATIC",
                secret_access_key=SECRET,
            )
            async with DynamoDBSink(settings, "movies", Counters(), QUICK) as sink:
                await sink.put(items(25))

    asyncio.run(main())
    (call,) = responder.calls
    assert call.request.path == (path or "/")
    signed = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=(\w+)", call.headers["Authorization"]
    )
    assert signed is not None
    names = signed[2].split(";")
    assert names == ["content-type", "host", "x-amz-date", "x-amz-target"]
    assert signed[1] == f"AKIDSTATIC/{call.headers['X-Amz-Date'][:8]}/eu-west-1/dynamodb/aws4_request"
    again = AWSRequest(
        method="POST",
        url=responder.url + path,
        data=call.body,
        headers={name: call.headers[name] for name in names},
    )
    again.context["timestamp"] = call.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials("AKIDSTATIC", SECRET), "dynamodb", "eu-west-1")
    text = signer.string_to_sign(again, signer.canonical_request(again))
    assert signed[3] == signer.signature(text, again)


def test_unprocessed_items_are_sent_again_however_they_are_spelt() -> None:
    responder, counters = Responder(), Counters()
    responder.script.append(unprocessed(responder, lambda it: int(it["id"]["N"]) % 3 == 0))
    responder.script.append(unprocessed(responder, lambda it: int(it["id"]["N"]) % 3 == 1))
    assert serve(responder, lambda sink: sink.put(items(25)), counters=counters) == []
    assert [len(call.items) for call in responder.calls] == [25, 16, 8]
    assert responder.stored == {str(number): orjson.loads(item(number)) for number in range(25)}
    assert (counters.rows_loaded, counters.throttles, counters.retries) == (25, 2, 0)


def test_unprocessed_items_do_not_end_what_gets_on() -> None:
    # One item a request, and not a moment's patience: every request acknowledges something, so there is no stall.
    responder = Responder()
    taken: set[str] = set()

    def one_more(it: Item) -> bool:
        first = it["id"]["N"] not in taken and len(taken) < len(responder.calls)
        if first:
            taken.add(it["id"]["N"])
        return first

    responder.forever = unprocessed(responder, one_more)
    serve(responder, lambda sink: sink.put(items(25)), retry=RetryPolicy(patience=0.01, base=0.001, ceiling=0.001))
    assert responder.numbers == list(range(25))
    assert len(responder.calls) == 25


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
    ],
)
def test_throttles_are_waited_out_and_counted(code: str) -> None:
    responder, counters = Responder(*[error(code)] * 7), Counters()
    assert serve(responder, lambda sink: sink.put(items(60)), counters=counters) == []
    assert responder.numbers == list(range(60))
    assert (counters.rows_loaded, counters.throttles, counters.retries) == (60, 7, 0)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(error("InternalServerError", status=500), id="500"),
        pytest.param(error("ServiceUnavailable", status=503), id="503"),
        pytest.param(error("TransactionInProgressException"), id="transaction in progress"),
        pytest.param(answers(502, b"<html>Bad Gateway</html>"), id="gateway's page"),
        pytest.param(answers(503, b"<html></html>", **{"Content-Type": "text/html"}), id="balancer's page"),
        pytest.param(answers(504, b""), id="an error without a word"),
        pytest.param(answers(400, b""), id="a refusal without a word"),
        pytest.param(answers(400, b'{"__type":"com.amazonaws.dynamodb.v20120810#Val'), id="truncated error"),
        pytest.param(answers(404, b"<html>default backend</html>"), id="a gateway's that has lost its way"),
        pytest.param(answers(302, b"", Location="http://127.0.0.1:1/"), id="portal's redirection"),
        pytest.param(answers(200, b"<html>Please sign in</html>"), id="portal's page"),
        pytest.param(answers(200, b""), id="nothing"),
        pytest.param(answers(200, b"{}"), id="no word of the unprocessed"),
        pytest.param(answers(200, b'{"UnprocessedItems":{"movies":[{"PutRequest":{}}]}}'), id="half an item"),
        pytest.param(answers(200, b'{"UnprocessedItems":{"other":[]}}'), id="another table's"),
        pytest.param(answers(200, b'{"UnprocessedItems":{"movies":[{"Put'), id="truncated JSON"),
        pytest.param(answers(200, b"[]"), id="a list"),
        pytest.param(answers(200, b'{"UnprocessedItems":{}}', **{"X-Amz-Crc32": "1"}), id="wrong checksum"),
        pytest.param(reset, id="reset"),
        pytest.param(cut, id="cut"),
    ],
)
def test_what_passes_is_tried_again(fault: Step) -> None:
    responder, counters = Responder(fault, fault, fault), Counters()
    assert serve(responder, lambda sink: sink.put(items(30)), counters=counters) == []
    assert responder.numbers == list(range(30))
    assert (counters.rows_loaded, counters.throttles, counters.retries) == (30, 0, 3)


def test_more_unprocessed_items_than_were_sent_are_not_believed() -> None:
    writes = [{"PutRequest": {"Item": orjson.loads(item(number))}} for number in range(4)]
    responder = Responder(answers(200, orjson.dumps({"UnprocessedItems": {"movies": writes}})))
    serve(responder, lambda sink: sink.put(items(3)))
    assert responder.numbers == [0, 1, 2]


def test_no_answer_in_time_is_tried_again() -> None:
    async def never(_call: Call) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    responder, counters = Responder(never, never), Counters()
    serve(responder, lambda sink: sink.put(items(5)), counters=counters, request_seconds=0.2)
    assert responder.numbers == [0, 1, 2, 3, 4]
    assert counters.retries == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error("ThrottlingException"), Throttled),
        (error("InternalServerError", status=500), Unavailable),
        (reset, Unavailable),
        (answers(200, b"?"), Unavailable),
    ],
)
def test_patience_runs_out(fault: Step, kind: type[EtlError]) -> None:
    responder = Responder(forever=fault)
    with pytest.raises(kind) as caught:
        serve(responder, lambda sink: sink.put(items(400)), retry=HASTY)
    assert "movies" in caught.value.message
    assert responder.url in caught.value.message
    assert caught.value.hint


def test_unprocessed_items_for_ever_are_a_throttle() -> None:
    responder = Responder()
    responder.forever = unprocessed(responder, lambda _it: False)
    with pytest.raises(Throttled, match=r"movies.*no reason") as caught:
        serve(responder, lambda sink: sink.put(items(3)), retry=HASTY)
    assert "CloudWatch" in (caught.value.hint or "")


def test_nobody_there() -> None:
    async def use(sink: DynamoDBSink) -> None:
        await responder.runner.cleanup()
        await sink.put(items(3))

    responder = Responder()
    with pytest.raises(Unavailable, match=r"movies at http://127\.0\.0\.1"):
        serve(responder, use, retry=HASTY)


@pytest.mark.parametrize("code", ["ValidationException", "SerializationException"])
@pytest.mark.parametrize("bad", [{0}, {24}, {3, 4, 17}, set(range(25))])
def test_refused_items_are_found_among_the_others(code: str, bad: set[int]) -> None:
    responder, counters = Responder(), Counters()

    async def picky(call: Call) -> web.StreamResponse:
        if any(int(it["id"]["N"]) in bad for it in call.items):
            return await error(code, "The number is not to our taste")(call)
        return await responder.accept(call)

    responder.forever = picky
    refusals = serve(responder, lambda sink: sink.put(items(25)), counters=counters)
    assert sorted(refusals) == sorted(Refusal(item(number), "The number is not to our taste") for number in bad)
    assert responder.numbers == [number for number in range(25) if number not in bad]
    assert (counters.rows_loaded, counters.throttles, counters.retries) == (25 - len(bad), 0, 0)


def test_duplicates_in_a_batch_end_in_requests_of_their_own() -> None:
    responder, counters = Responder(), Counters()

    async def strict(call: Call) -> web.StreamResponse:
        keys = [it["id"]["N"] for it in call.items]
        if len(set(keys)) < len(keys):
            return await error("ValidationException", "Provided list of item keys contains duplicates")(call)
        return await responder.accept(call)

    responder.forever = strict
    twice = [*items(10), item(4, "again"), item(9, "again"), item(4, "and again")]
    assert serve(responder, lambda sink: sink.put(twice), counters=counters) == []
    assert responder.numbers == list(range(10))
    assert counters.rows_loaded == 13


def test_a_request_that_is_too_large_is_split() -> None:
    responder = Responder()

    async def small(call: Call) -> web.StreamResponse:
        return await (responder.accept(call) if len(call.items) <= 6 else answers(413, b"<html>Too large</html>")(call))

    responder.forever = small
    assert serve(responder, lambda sink: sink.put(items(50)), retry=HASTY) == []
    assert responder.numbers == list(range(50))


def test_large_items_go_in_small_company_and_any_size_is_sent() -> None:
    responder = Responder()
    large = [item(number, "x" * 390_000) for number in range(7)]
    # 400 KB in DynamoDB's count can be six times that in JSON.
    huge = item(7, "\x01" * 380_000)
    assert len(huge) > 2**21
    serve(responder, lambda sink: sink.put([*large, huge]))
    assert responder.numbers == list(range(8))
    assert sorted(len(call.items) for call in responder.calls) == [1, 1, 2, 2, 2]


def test_expired_credentials_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOLD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "old-token")
    responder, counters = Responder(), Counters()

    async def aging(call: Call) -> web.StreamResponse:
        if "AKIDOLD" in call.headers["Authorization"]:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
            monkeypatch.setenv("AWS_SESSION_TOKEN", "new-token")
            return await error("ExpiredTokenException", "The security token included in the request is expired")(call)
        assert call.headers["X-Amz-Security-Token"] == "new-token"
        return await responder.accept(call)

    responder.forever = aging
    serve(responder, lambda sink: sink.put(items(60)), counters=counters, static=False)
    assert responder.numbers == list(range(60))
    assert counters.retries == sum("AKIDOLD" in call.headers["Authorization"] for call in responder.calls) > 0


def test_expired_for_a_moment_only() -> None:
    responder = Responder(error("ExpiredTokenException"))
    assert serve(responder, lambda sink: sink.put(items(3))) == []
    assert responder.numbers == [0, 1, 2]


def test_expired_for_good() -> None:
    responder = Responder(forever=error("ExpiredTokenException"))
    with pytest.raises(SinkError, match="expired") as caught:
        serve(responder, lambda sink: sink.put(items(3)))
    assert "sso login" in (caught.value.hint or "")
    assert 1 < len(responder.calls) < 10


def test_credentials_that_are_gone_when_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOLD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    async def gone(call: Call) -> web.StreamResponse:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        return await error("ExpiredTokenException")(call)

    with pytest.raises(SinkError, match="no new ones"):
        serve(Responder(forever=gone), lambda sink: sink.put(items(3)), static=False)


def test_a_table_deleted_in_the_middle_ends_all() -> None:
    responder, counters = Responder(), Counters()
    responder.script.extend([responder.accept] * 3)
    responder.forever = error("ResourceNotFoundException", "Requested resource not found")
    with pytest.raises(SinkError, match=r"table movies at .* does not exist") as caught:
        serve(responder, lambda sink: sink.put(items(1000)), counters=counters)
    assert "create-table movies" in (caught.value.hint or "")
    assert counters.rows_loaded == 75
    assert len(responder.calls) < 40


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", "BatchWriteItem"),
        ("UnrecognizedClientException", "credentials"),
        ("InvalidSignatureException", "credentials"),
        ("SomethingNewException", "SomethingNewException"),
    ],
)
def test_a_refusal_of_everything_ends_at_once(code: str, words: str) -> None:
    message = f"The Canonical String should have been 'POST\nx-amz-security-token:{SECRET}'" if "Sig" in code else "No."
    responder = Responder(forever=error(code, message))
    with pytest.raises(SinkError, match=words) as caught:
        serve(responder, lambda sink: sink.put(items(3)))
    assert len(responder.calls) == 1
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    if code == "AccessDeniedException":
        assert "dynamodb:BatchWriteItem" in (caught.value.hint or "")


def test_what_does_not_speak_dynamodb() -> None:
    responder = Responder(forever=answers(404, b"<html>nginx</html>"))
    with pytest.raises(Unavailable, match="does not speak DynamoDB") as caught:
        serve(responder, lambda sink: sink.put(items(3)), retry=HASTY)
    assert "endpoint" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, b"<html>Who are you?</html>", "login"),
        (403, b"<html>Blocked by policy</html>", "NO_PROXY"),
        (403, b'{"message":"Forbidden"}', "NO_PROXY"),
        (407, b"", "USER:PASSWORD"),
    ],
)
def test_a_proxy_that_refuses_is_told_of_at_once(status: int, body: bytes, words: str) -> None:
    responder = Responder(forever=answers(status, body))
    with pytest.raises(SinkError, match=f"HTTP status {status}") as caught:
        serve(responder, lambda sink: sink.put(items(3)))
    assert len(responder.calls) == 1
    assert words in (caught.value.hint or "")


def test_reasons_of_throttles_are_counted_and_told_where_patience_ends() -> None:
    resource = "arn:aws:dynamodb:eu-west-1:123456789012:table/movies"
    reason = {"reason": "TableWriteKeyRangeThroughputExceeded", "resource": resource}
    document = {"__type": "x#ProvisionedThroughputExceededException", "ThrottlingReasons": [reason]}
    responder, counters = Responder(*[answers(400, orjson.dumps(document))] * 4), Counters()
    responder.script.append(unprocessed(responder, lambda it: int(it["id"]["N"]) % 2 == 0))
    serve(responder, lambda sink: sink.put(items(20)), counters=counters)
    assert responder.numbers == list(range(20))
    assert counters.throttles == 5
    assert counters.throttle_reasons == {
        "TableWriteKeyRangeThroughputExceeded": {"movies": 4},
        "UnprocessedItems": {"movies": 1},
    }
    responder = Responder(forever=answers(400, orjson.dumps(document)))
    with pytest.raises(Throttled, match="one hot key range") as caught:
        serve(responder, lambda sink: sink.put(items(20)), retry=HASTY)
    assert "hash key" in (caught.value.hint or "")


def test_requests_in_flight_stay_under_their_bound_over_all_puts() -> None:
    responder, counters = Responder(), Counters()
    now, most, counted = 0, 0, 0
    full = asyncio.Event()

    async def busy(call: Call) -> web.StreamResponse:
        nonlocal now, most, counted
        now += 1
        most, counted = max(most, now), max(counted, counters.requests_in_flight)
        if now == 4:
            full.set()
        await full.wait()
        now -= 1
        return await responder.accept(call)

    async def use(sink: DynamoDBSink) -> None:
        await asyncio.gather(*(sink.put([item(1000 * part + it) for it in range(150)]) for part in range(3)))

    responder.forever = busy
    serve(responder, use, counters=counters, max_in_flight=4)
    assert (most, counted) == (4, 4)
    assert len(responder.numbers) == counters.rows_loaded == 450


def test_a_cancelled_put_leaves_nothing_behind_and_the_sink_goes_on() -> None:
    responder = Responder()
    arrived = asyncio.Event()

    async def hold(call: Call) -> web.StreamResponse:
        if len(responder.calls) == 8:
            arrived.set()
        if len(responder.calls) <= 8:
            await asyncio.Event().wait()
        return await responder.accept(call)

    async def use(sink: DynamoDBSink) -> None:
        putting = asyncio.create_task(sink.put(items(1000)))
        await arrived.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert await sink.put(items(300)) == []

    responder.forever = hold
    serve(responder, use)
    assert responder.numbers == list(range(300))


def test_a_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(no_proxy: str) -> None:
        async with responder:
            monkeypatch.setenv("HTTP_PROXY", responder.url)
            monkeypatch.setenv("NO_PROXY", no_proxy)
            settings = DynamoDBSettings("eu-west-1", "http://dynamodb.invalid", None, "AKID", SECRET)
            async with DynamoDBSink(settings, "movies", Counters(), HASTY) as sink:
                await sink.put(items(3))

    responder = Responder()
    asyncio.run(main(""))
    (call,) = responder.calls
    assert call.headers["Host"] == "dynamodb.invalid"
    with pytest.raises(Unavailable, match=r"dynamodb\.invalid"):
        asyncio.run(main("dynamodb.invalid"))


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("407 Proxy Authentication Required", SinkError, "USER:PASSWORD"),
        ("403 Forbidden", SinkError, "NO_PROXY"),
        ("503 Service Unavailable", Unavailable, "the same command"),
    ],
)
@pytest.mark.parametrize("path", ["boto3's", "our own"])
def test_a_proxy_that_lets_no_tls_through_says_why(
    monkeypatch: pytest.MonkeyPatch, status: str, kind: type[EtlError], words: str, path: str
) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("HTTPS_PROXY", f"http://ada:{SECRET}@127.0.0.1:{port}")
            settings = DynamoDBSettings("eu-west-1", None, None, "AKID", "hush")
            async with DynamoDBSink(settings, "movies", Counters(), HASTY) as sink:
                await (sink.key() if path == "boto3's" else sink.put(items(3)))

    with pytest.raises(kind, match=status[:3]) as caught:
        asyncio.run(main())
    assert asked[0].startswith(b"CONNECT dynamodb.eu-west-1.amazonaws.com:443 ")
    assert len(asked) == 1
    assert words in (caught.value.hint or "")
    assert SECRET not in f"{caught.value.message}{caught.value.hint}"


def test_no_proxy_stands_before_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    responder = Responder()
    serve(responder, lambda sink: sink.put(items(3)), retry=HASTY)
    assert responder.numbers == [0, 1, 2]


def certificate(folder: Path) -> Path:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "ca.pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem


def test_a_named_certificate_authority_is_trusted_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    with pytest.raises(SinkError, match="not trusted") as caught:
        serve(Responder(tls=server), lambda sink: sink.put(items(3)))
    assert "AWS_CA_BUNDLE" in (caught.value.hint or "")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
    responder = Responder(tls=server)
    serve(responder, lambda sink: sink.put(items(3)))
    assert responder.numbers == [0, 1, 2]
