"""Parameter Store and Secrets Manager on loopback, by moto: who asks for what is seen, and answers can be faults."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Vault", "vault"]


class Vault:
    """Both services at one address.

    Attributes:
        url: The address.
        asked: What was asked for, in order: ``GetParameter /etl/url``.
        faults: What is answered in place of a value, by its name: status, code and message; or a whole body.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.faults: dict[str, tuple[int, str, str] | bytes] = {}
        self._clients: dict[str, Any] = {}

    @property
    def variables(self) -> dict[str, str]:
        """What leads botocore here."""
        return {"AWS_ENDPOINT_URL_SSM": self.url, "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.url}

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A client, to put things there."""
        return boto3.client(
            service,  # type: ignore[call-overload]  # of no service whose stubs are installed
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def parameter(self, name: str, value: str, kind: str = "SecureString") -> None:
        """Put a parameter, or a new version of it."""
        self.client("ssm").put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)

    def secret(self, name: str, value: str | bytes, region: str = "us-east-1") -> str:
        """Put a secret, and return its ARN."""
        given = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": value}
        return str(self.client("secretsmanager", region).create_secret(Name=name, **given)["ARN"])

    def serve(self, app: WSGIApplication, environ: WSGIEnvironment, start: StartResponse) -> Any:
        """Answer a request."""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        action = str(environ.get("HTTP_X_AMZ_TARGET")).rpartition(".")[2]
        if action in ("GetParameter", "GetSecretValue"):
            document = json.loads(body)
            name = document.get("Name") or document.get("SecretId")
            self.asked.append(f"{action} {name}")
            fault = self.faults.get(name)
            if fault is not None:
                if isinstance(fault, bytes):
                    start("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
                    return [fault]
                status, code, message = fault
                start(f"{status} Refused", [("Content-Type", "application/x-amz-json-1.1")])
                return [json.dumps({"__type": code, "message": message}).encode()]
        return app(environ, start)


@contextmanager
def vault() -> Iterator[Vault]:
    """Run one in a thread."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            pass

    made = Vault()
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1", 0, lambda environ, start: made.serve(app, environ, start), threaded=True, request_handler=Quiet
    )
    made.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
