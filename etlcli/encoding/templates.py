"""Templates: texts with columns in braces, ``MOVIE#{movie_id}``.

    {column}            the column's text, as its attribute has it
    {column:010d}       an integer, zero-padded to ten characters
    {column:%Y-%m}      parts of a date or a timestamp: %Y %m %d %H %M %S (and %% for a percent sign)
    {"odd: name"}       a name with braces, a colon, quotes or outer spaces stands in double quotes, doubled inside it
    {{ and }}           a brace

Here is their grammar alone; ``fields`` knows what the columns' types make of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from etlcli.errors import ConfigError

__all__ = ["DIRECTIVES", "Field", "Template", "field_text"]

DIRECTIVES: Final = "YmdHMS"
"""The letters that may follow a percent sign, besides another one."""

_MAX_WIDTH: Final = 100
_MARK: Final = re.compile(r"\{\{|\}\}|\{|\}")
_FIELD: Final = re.compile(
    r'\s*(?:"(?P<quoted>[^"]*(?:""[^"]*)*)"|(?P<bare>[^"{}:\s][^{}:]*))?\s*(?::(?P<format>[^{}]*))?\}'
)
_PADDING: Final = re.compile(r"0([1-9][0-9]*)d")
_PERCENT: Final = re.compile(r"%(.?)", re.DOTALL)
_HINT: Final = (
    "Fields are {column}, {column:010d} (zero padding) and {column:%Y-%m} (parts of a date); braces themselves are"
    " doubled, and odd names stand in double quotes."
)


@dataclass(frozen=True, slots=True)
class Field:
    """A column in a template.

    Attributes:
        column: Its name.
        format: What stands behind the colon: nothing, ``010d``, or text with directives like ``%Y-%m``.
    """

    column: str
    format: str = ""

    @property
    def padding(self) -> int | None:
        """The least width of a zero-padded integer; None where the format is not zero padding."""
        matched = _PADDING.fullmatch(self.format)
        return int(matched[1]) if matched else None

    @property
    def pieces(self) -> tuple[str, ...]:
        """The format of a date taken apart: directives (``%Y``) and the text between them; empty for other formats."""
        if "%" not in self.format:
            return ()
        pieces = [piece for piece in re.split(r"(%.)", self.format, flags=re.DOTALL) if piece]
        return tuple("%" if piece == "%%" else piece for piece in pieces)


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was understood.

    Attributes:
        text: As it was written.
        parts: Literal text (braces no longer doubled) and fields, in order; no two texts stand side by side.
    """

    text: str
    parts: tuple[str | Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields, in order."""
        return tuple(part for part in self.parts if isinstance(part, Field))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it takes, each once."""
        return tuple(dict.fromkeys(field.column for field in self.fields))

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template; whether its columns exist, and take their formats, is not looked at.

        Raises:
            ConfigError: It is malformed; the message quotes it.
        """
        parts: list[str | Field] = []
        literal = ""
        at = 0
        while mark := _MARK.search(text, at):
            literal += text[at : mark.start()]
            at = mark.end()
            if mark[0] != "{":
                if mark[0] == "}":
                    raise _malformed(text, "has a } that no { opens")
                literal += mark[0][0]
                continue
            found = _FIELD.match(text, at)
            if found is None:
                raise _malformed(text, f"has a field that cannot be read, from {text[mark.start() :][:30]!r} on")
            if literal:
                parts.append(literal)
                literal = ""
            parts.append(_field(text, found))
            at = found.end()
        literal += text[at:]
        if literal:
            parts.append(literal)
        return cls(text, tuple(parts))


def field_text(column: str) -> str:
    """Write a column as a field of a template: ``{movie_id}``, ``{"odd: name"}``."""
    if column != column.strip() or re.search(r'[{}:]|^"', column):
        column = '"' + column.replace('"', '""') + '"'
    return f"{{{column}}}"


def _field(text: str, found: re.Match[str]) -> Field:
    quoted, bare, form = found["quoted"], found["bare"], found["format"]
    column = quoted.replace('""', '"') if quoted is not None else (bare or "").strip()
    if not column:
        raise _malformed(text, "has a field that names no column")
    if form is None:
        return Field(column)
    if matched := _PADDING.fullmatch(form):
        # The length first: of thousands of digits Python makes no number.
        if len(matched[1]) > len(str(_MAX_WIDTH)) or int(matched[1]) > _MAX_WIDTH:
            raise _malformed(text, f"pads {column} to more than {_MAX_WIDTH} characters")
        return Field(column, form)
    letters = _PERCENT.findall(form)
    if wrong := [letter for letter in letters if letter not in (*DIRECTIVES, "%")]:
        known = ", ".join(f"%{letter}" for letter in DIRECTIVES)
        raise _malformed(text, f"has the directive %{wrong[0]}; there are {known} and %%")
    if not any(letter in DIRECTIVES for letter in letters):
        raise _malformed(text, f"has the unknown format {form!r} for {column}")
    return Field(column, form)


def _malformed(text: str, problem: str) -> ConfigError:
    return ConfigError(f"the template {text!r} {problem}", hint=_HINT)
