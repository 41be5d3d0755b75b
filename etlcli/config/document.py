"""The config file: where it is looked for, and its text as tables with line numbers; elsewhere it is judged."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from etlcli.config import locate
from etlcli.config.problems import Problem
from etlcli.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "FILE_NAME", "Document", "find_file", "read_file"]

CONFIG_VARIABLE = "MOMENTO_ETL_CONFIG"
FILE_NAME = "momento-etl.toml"

# Far more than any config takes; it stops the reading of a device or of a data file given by mistake.
_MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """A config file that was read.

    Attributes:
        path: Where it is.
        tables: Its content as ``tomllib`` gives it.
        lines: The lines of its keys, as far as they are known for sure.
    """

    path: Path
    tables: Mapping[str, object]
    lines: Mapping[locate.Path, int]

    def place(self, *path: str) -> str:
        """Name the place of a key, for messages: ``momento-etl.toml, line 4``; without a line where it is not known."""
        line = self.lines.get(path)
        return str(self.path) if line is None else f"{self.path}, line {line}"

    def problem(self, path: locate.Path, message: str, hint: str | None = None) -> Problem:
        """Make a problem of what is wrong with a key."""
        return Problem(f"{self.place(*path)}: {message}", hint, self.lines.get(path))


def find_file(named: str | None, environ: Mapping[str, str], folder: Path) -> Path | None:
    """Find the config file: named by the flag, by the environment, in this folder, in the user's config folder.

    Args:
        named: What ``--config`` gave.
        environ: The environment.
        folder: Where relative names start, and where ``momento-etl.toml`` is looked for.

    Returns:
        The file, or None where none is named and none is there. A named one may be missing: reading it tells.

    Raises:
        ConfigError: A name was given that is empty or cannot be one.
    """
    if named is not None:
        if not named.strip():
            raise ConfigError("--config names no file", hint="Write --config FILE.")
        return _expanded(named, folder)
    if CONFIG_VARIABLE in environ:
        return _expanded(environ[CONFIG_VARIABLE], folder)
    here = folder / FILE_NAME
    candidates = [here, *_user_file(environ)]
    return next((path for path in candidates if _is_there(path)), None)


def read_file(path: Path) -> Document:
    """Read a config file.

    Raises:
        ConfigError: It is missing, unreadable, not UTF-8, or not TOML; the message tells which, and where.
    """
    text = _decoded(path, _bytes(path))
    try:
        # Numbers stay as they are written: a float would lose digits of them.
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, str(error)) from None
    except (ValueError, ArithmeticError, RecursionError):
        # A number of thousands of digits, or thousands of brackets: tomllib lets Python's own errors through.
        raise ConfigError(f"{path} is not a config: it has values that are too large", hint=_EXAMPLE_HINT) from None
    return Document(path, tables, locate.locate(text, tables))


_EXAMPLE_HINT = "config.example.toml shows how a config looks."


def _expanded(name: str, folder: Path) -> Path:
    try:
        return folder / Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}: there is no such home folder", hint="Write the path in full.") from None


def _user_file(environ: Mapping[str, str]) -> list[Path]:
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    if not base.is_absolute():
        # The XDG Base Directory Specification: a relative path is to be ignored.
        home = environ.get("HOME")
        if not home:
            return []
        base = Path(home) / ".config"
    return [base / "momento-etl" / "config.toml"]


def _is_there(path: Path) -> bool:
    # A folder that this user may not look into, such as another user's home, is as good as none; a file that is
    # there and cannot be read is an error, when it is read.
    return os.path.exists(path)  # noqa: PTH110  Path.exists raises where the folder is closed


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"the config file {path} does not exist",
            hint=f"Check --config and {CONFIG_VARIABLE}. {_EXAMPLE_HINT}",
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a file's name"
        raise ConfigError(
            f"the config file {path} cannot be read: {reason}",
            hint="It has to be a file that this user may read.",
        ) from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is not a config: it is over 1 MB large", hint=_EXAMPLE_HINT)
    return content


def _decoded(path: Path, content: bytes) -> str:
    try:
        # utf-8-sig: some editors put a byte order mark in front, which tomllib refuses.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text", hint="Save the file as UTF-8.") from None


def _syntax_error(path: Path, message: str) -> ConfigError:
    match = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if match:
        place, reason = f"{path}, line {match[2]}, column {match[3]}", match[1]
    else:
        place, reason = str(path), message.replace("(at end of document)", "at the end of the file")
    return ConfigError(f"{place}: not TOML: {reason}", hint=f'Texts stand in quotes: key = "value". {_EXAMPLE_HINT}')
