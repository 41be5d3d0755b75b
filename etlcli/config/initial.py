"""A first config file: made of what the environment has, which it refers to, and of what somebody answers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from etlcli.config.outline import header
from etlcli.config.references import is_reference
from etlcli.config.schema import LIBPQ_VARIABLES, SECTIONS, Option

__all__ = ["ASKED", "found_in", "initial_file", "missing_variables", "option_at", "without_password"]

ASKED = (
    "source.url",
    "cache.api_key",
    "cache.endpoint",
    "cache.local",
    "cache.name",
    "destination.region",
    "destination.profile",
    "destination.endpoint_url",
)
"""The options that a first config has, by section and key."""

_INTRODUCTION = """\
# A config for momento-etl. Check it: momento-etl doctor
# Every option there is: config.example.toml, or momento-etl schema config
"""

# What stands in a section that has nothing: it shows what could.
_SUGGESTIONS = {
    "source": ('url = "env:DATABASE_URL"',),
    "cache": ('api_key = "env:MOMENTO_API_KEY"', 'endpoint = "env:MOMENTO_ENDPOINT"'),
    "destination": ('region = "eu-west-1"',),
    "tables": ("[tables.movies]", 'key = ["movie_id"]'),
}
_PASSWORDS = ("password", "sslpassword")
_PARAMETER = re.compile(rf"(?:^|(?<=\s))(?:{'|'.join(_PASSWORDS)})\s*=\s*(?:'(?:[^'\\]|\\.)*'|\S+)\s*")


def option_at(path: str) -> Option:
    """Look up an option by section and key: ``cache.api_key``."""
    section, _, name = path.partition(".")
    return SECTIONS[section].options[name]


def found_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Find what the environment has, as references to it: ``{"source.url": "env:DATABASE_URL"}``."""
    found = {}
    for path in ASKED:
        variable = next((name for name in option_at(path).environment if environ.get(name, "").strip()), None)
        if variable is not None:
            found[path] = f"env:{variable}"
    if "cache.api_key" in found:
        found.pop("cache.local", None)
    return found


def missing_variables(values: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    """List the variables that a config refers to and that are not set."""
    named = [text.removeprefix("env:") for text in values.values() if text.startswith("env:")]
    return [name for name in named if not environ.get(name, "").strip()]


def without_password(address: str) -> str:
    """Take the passwords out of a source's address: of its user's part, of its parameters, or of libpq's keywords."""
    if is_reference(address):
        return address
    if "://" not in address:
        return _PARAMETER.sub("", address).strip()
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in _PASSWORDS]
    kept = parts.query if len(query) == len(parse_qsl(parts.query, keep_blank_values=True)) else urlencode(query)
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query=kept))


def initial_file(values: Mapping[str, str], tables: Sequence[str], environ: Mapping[str, str]) -> str:
    """Write the file.

    Args:
        values: By section and key, as texts: references, or what is meant itself.
        tables: The names of tables, each of which becomes a job.
        environ: The environment, for what libpq itself takes from it.
    """
    libpq = [name for name in LIBPQ_VARIABLES if environ.get(name, "").strip()]
    blocks = [_INTRODUCTION]
    for section in ("source", "cache", "destination"):
        lines = [
            f"{path.partition('.')[2]} = {json.dumps(values[path], ensure_ascii=False)}"
            for path in ASKED
            if path in values and path.startswith(f"{section}.")
        ]
        if not lines and section == "source" and libpq:
            lines = [f"# Where it is, the environment says: {', '.join(libpq)}."]
        blocks.append("\n".join([f"[{section}]", *(lines or _commented(section)), ""]))
    if tables:
        blocks += [f"{header(SECTIONS['tables'], name)}\n" for name in tables]
    else:
        blocks.append("\n".join([*_commented("tables"), ""]))
    return "\n".join(blocks)


def _commented(section: str) -> list[str]:
    return [f"# {line}" for line in _SUGGESTIONS[section]]
