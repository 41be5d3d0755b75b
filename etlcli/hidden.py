"""What must never be shown: passwords, keys and tokens, wherever they might turn up.

Our own messages are made without any. What services and libraries say is foreign, and so is what an exception holds
that nobody expected: a server may tell a request's headers back, and a defect may show a URL. Such words go through
``masked`` before anybody sees them.

Whoever takes a secret into its hands hides it first. There is one list of them for the whole process, since an
exception does not know whose it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import unquote

__all__ = ["hide", "hide_environment", "hide_within", "masked", "passwords_within"]

_MASK = "***"

# What is shorter cannot be told from words that mean nothing.
_SHORTEST = 5

# What is secret in the environment, by its variable's name; but not where to find a secret.
_SECRET_NAME = re.compile(r"(?:SECRET|TOKEN(?![A-Z])|PASSWORD|API_KEY)(?!\w*_(?:ARN|DIR|FILE|NAME|PATH)$)")

# Where passwords are in a URL, and in libpq's strings of keywords. Odd characters should be encoded in a URL; where
# they are not, the password may end at the first @ or at the last.
_IN_URLS = (re.compile(r"://[^:/@\s]*:([^@/\s]+)@"), re.compile(r"://[^:/@\s]*:(\S+)@"))
_IN_PARAMETERS = re.compile(r"\b(?:password|sslpassword)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s&]+))")
_ESCAPED = re.compile(r"\\(.)")

# Each secret, and a pattern of all ways to spell it.
_patterns: dict[str, str] = {}


def hide(*secrets: str | None) -> None:
    """Remember what must never be shown; None and what is very short is left out."""
    for secret in secrets:
        if secret is None:
            continue
        # Whichever of the two the program holds, the other one may be shown.
        for way in {secret, unquote(secret)}:
            if len(way) >= _SHORTEST and way not in _patterns:
                _patterns[way] = "".join(map(_spelled, way))


def hide_within(text: str | None) -> None:
    """Remember the passwords in a URL, or in a connection string as libpq takes it."""
    if text is not None:
        hide(*passwords_within(text))


def passwords_within(text: str) -> list[str]:
    """Find the passwords in a URL, or in a connection string as libpq takes it."""
    found = [password for pattern in _IN_URLS for password in pattern.findall(text)]
    return found + [_ESCAPED.sub(r"\1", quoted) or plain for quoted, plain in _IN_PARAMETERS.findall(text)]


def hide_environment(environ: Mapping[str, str]) -> None:
    """Remember what is secret in the environment by its variable's name, and the passwords in all the rest."""
    for name, value in environ.items():
        if _SECRET_NAME.search(name):
            hide(value)
        hide_within(value)


def masked(text: str) -> str:
    """Take out of foreign words what must never be shown, however it is spelled there."""
    # The longest first: a shorter one may be a part of it.
    for secret in sorted(_patterns, key=len, reverse=True):
        text = re.sub(_patterns[secret], _MASK, text)
    return text


def _spelled(character: str) -> str:
    """The ways in which URLs, JSON and Python write a character, as a pattern."""
    if character.isascii() and character.isalnum():
        return character
    ways = {character, json.dumps(character)[1:-1], repr(character)[1:-1], ascii(character)[1:-1]}
    # A text that was put into another one has its backslashes doubled; some write one before a quote, some do not.
    patterns = [re.escape(way).replace(r"\\", r"\\+") for way in sorted(ways, key=len, reverse=True)]
    if character in "'\"\\":
        patterns = [rf"\\*{re.escape(character)}"]
    elif character == " ":
        patterns.append(r"\+")
    percent = "(?i:" + "".join(f"%{byte:02x}" for byte in character.encode(errors="replace")) + ")"
    return f"(?:{'|'.join([*patterns, percent])})"
