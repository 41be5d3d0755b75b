"""Which TCP port on loopback a part listens on."""

from __future__ import annotations

import socket

__all__ = ["HOST", "choose", "is_free"]

HOST = "127.0.0.1"
_CONNECT_SECONDS = 1.0


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of loopback now.

    Args:
        port: 1 to 65535.
    """
    # A listener on all interfaces does not keep macOS from binding the same port on one of them: so ask both ways.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last one that still wait to be forgotten do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(*preferred: int) -> int:
    """Return the first preferred port that is free, else a free one of the kernel's choice.

    The answer can be out of date when it is used: whoever starts a server looks again when it dies.
    """
    for port in preferred:
        if is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        chosen: int = probe.getsockname()[1]
    return chosen
