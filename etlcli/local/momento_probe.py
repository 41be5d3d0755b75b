"""Does a Momento-compatible server answer?"""

from __future__ import annotations

import socket

from etlcli.local.ports import HOST

__all__ = ["ask"]

_SECONDS = 2.0
# RFC 9113, 3.4: a client begins with this line and a SETTINGS frame (here without settings: length 0, type 4); the
# server's first frame is SETTINGS too. Importing gRPC for that would take longer than the whole answer.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_TYPE_OFFSET = 3
_SETTINGS = 4


def ask(port: int) -> str | None:
    """Say hello in HTTP/2, which gRPC speaks.

    Args:
        port: On loopback.

    Returns:
        Why it does not answer; None when it does.
    """
    try:
        with socket.create_connection((HOST, port), timeout=_SECONDS) as connection:
            connection.sendall(_PREFACE + _EMPTY_SETTINGS)
            frame = connection.recv(_TYPE_OFFSET + 1)
    except OSError as error:
        return str(error)
    return None if len(frame) > _TYPE_OFFSET and frame[_TYPE_OFFSET] == _SETTINGS else "no HTTP/2 answer"
