"""DynamoDB over HTTP on loopback, by moto: `python -m etlcli.local.dynamodb --port PORT`.

It keeps its tables in memory: they are gone when it stops. Of moto's services only DynamoDB is served.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from etlcli.local.ports import HOST

if TYPE_CHECKING:
    from types import FrameType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ask", "main"]

_SECONDS = 5.0


def ask(port: int) -> str | None:
    """List its tables, as any client would.

    Args:
        port: On loopback.

    Returns:
        Why it does not answer; None when it does.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS)
    try:
        connection.request(
            "POST",
            "/",
            body="{}",
            headers={
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": "DynamoDB_20120810.ListTables",
                # moto reads the region and the account from it, and checks no signature.
                "Authorization": "AWS4-HMAC-SHA256 Credential=local/20120810/us-east-1/dynamodb/aws4_request, "
                "SignedHeaders=host, Signature=0",
            },
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if "TableNames" in answer else f"HTTP {response.status} without a list of tables"


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        argv: The arguments, without the program's name; the process's own when None.
    """
    parser = argparse.ArgumentParser(prog="python -m etlcli.local.dynamodb", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where to listen on 127.0.0.1; 0: a free port")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    _serve(arguments.port)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _serve(port: int) -> None:
    # Otherwise any page in this machine's browsers might read and write the tables. Read when moto is imported.
    os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Say nothing of single requests: a run makes hundreds of thousands."""

    app = _one_at_a_time(create_backend_app("dynamodb"))
    server = make_server(HOST, port, app, threaded=True, request_handler=Quiet)
    try:
        sys.stdout.write(f"DynamoDB (moto) ready on {HOST}:{server.port}\n")
        sys.stdout.flush()
        server.serve_forever()
    finally:
        server.server_close()


def _one_at_a_time(app: WSGIApplication) -> WSGIApplication:
    """Let one request through at a time: moto's updates are not atomic, and conditional writes must be.

    It costs no speed: moto is Python through and through, which runs one thread at a time anyway.
    """
    lock = threading.Lock()

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        # Read first, so that a client which is slow to send keeps nobody else waiting.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with lock:
            return list(app(environ, start_response))

    return serve


if __name__ == "__main__":
    main()
