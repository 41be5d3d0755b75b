"""Kinds of values: what each expects, in words, and how it is read from TOML and from text (environment, flags)."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from urllib.parse import urlsplit

from etlcli.config import momento, names, units
from etlcli.hidden import masked
from etlcli.model import Overlap, Share

__all__ = [
    "Attributes",
    "BadValue",
    "Choice",
    "ChoiceMap",
    "Count",
    "Duration",
    "DynamoUrl",
    "Endpoint",
    "Flag",
    "FunctionName",
    "HostPort",
    "Kind",
    "NameList",
    "NameMap",
    "OverlapAmount",
    "Password",
    "PostgresAddress",
    "Price",
    "ResourceName",
    "ShareOf",
    "Size",
    "Tags",
    "Text",
    "found",
]

_MAX_SHOWN = 60


class BadValue(Exception):  # noqa: N818  it is about the value, and caught here only
    """A value does not fit its kind.

    Args:
        problem: What is wrong, as the end of a sentence that starts with the option: ``has to be ..., found ...``.
        hint: What to do about it.
    """

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


class Kind(ABC):
    """What an option takes.

    Attributes:
        expects: What it takes, in words that follow "has to be".
        scalar: Whether one text can give it, so that an environment variable can.
        shown: Whether a message may quote a wrong value; not where a secret may stand in its place by mistake.
    """

    expects: str
    scalar: bool = True
    shown: bool = True

    @abstractmethod
    def of_text(self, text: str) -> object:
        """Read what an environment variable, a flag or a reference gives.

        Raises:
            BadValue: It does not fit.
        """

    def of_toml(self, value: object) -> object:
        """Read what the file gives.

        Raises:
            BadValue: It does not fit.
        """
        if isinstance(value, str):
            return self.of_text(value)
        raise self.mismatch(value, 'A text stands in quotes: key = "value".')

    def mismatch(self, value: object, hint: str | None = None) -> BadValue:
        """Make the error that says what was expected and what was found."""
        return BadValue(f"has to be {self.expects}; found {found(value, shown=self.shown)}", hint)


def found(value: object, *, shown: bool = True) -> str:
    """Describe a value for a message: a text or a number as it stands where it may be shown, else by its type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str) and not value.strip():
        return "an empty text"
    if isinstance(value, str):
        # A secret may have been put into the wrong place.
        kind, text = "a text", f'"{masked(value)}"'
    elif isinstance(value, int | float | Decimal):
        kind, text = "a number", str(value)
    else:
        kind, text = "a date or a time", str(value)
    if not shown:
        return kind
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


class Text(Kind):
    """Any text but an empty one; surrounding whitespace does not count.

    Args:
        what: What it is, in words: ``a condition in SQL``.
        shown: Whether messages may quote it.
    """

    def __init__(self, what: str = "a text", *, shown: bool = True) -> None:
        self.expects = f"{what}, as a text"
        self.shown = shown

    def of_text(self, text: str) -> str:
        """See the class."""
        if not text.strip():
            raise BadValue("is empty", "Give it a text, or leave it out.")
        if "\0" in text:
            raise BadValue("has a NUL character in it")
        return text.strip()


class Flag(Kind):
    """True or false."""

    expects = "true or false, without quotes"

    def of_text(self, text: str) -> bool:
        """Read the words that people use for yes and no in environment variables."""
        word = text.strip().lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise BadValue(f"has to be true or false; found {found(text)}")

    def of_toml(self, value: object) -> bool:
        """See the class."""
        if not isinstance(value, bool):
            raise self.mismatch(value)
        return value


class _Figure(Kind):
    """A whole number within bounds, with or without a unit."""

    def __init__(self, minimum: int = 0, maximum: int | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum

    @abstractmethod
    def _parse(self, text: str) -> int:
        """Read the text; ``ValueError`` where it is none."""

    @abstractmethod
    def _format(self, figure: int) -> str:
        """Write the figure for a message."""

    def of_text(self, text: str) -> int:
        """See the class."""
        try:
            figure = self._parse(text)
        except ValueError:
            raise self.mismatch(text) from None
        return self._within(figure, text)

    def of_toml(self, value: object) -> int:
        """A number counts in the smallest unit."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self.mismatch(value)
        return self._within(value, value) if isinstance(value, int) else self.of_text(value)

    def _within(self, figure: int, value: object) -> int:
        if figure < self.minimum:
            raise BadValue(f"has to be at least {self._format(self.minimum)}; found {found(value)}")
        if self.maximum is not None and figure > self.maximum:
            raise BadValue(f"has to be at most {self._format(self.maximum)}; found {found(value)}")
        return figure


class Count(_Figure):
    """A whole number."""

    expects = "a whole number"

    def _parse(self, text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
            raise ValueError(text)
        return int(text)

    def _format(self, figure: int) -> str:
        return str(figure)


class Duration(_Figure):
    """A duration, kept as seconds."""

    expects = 'a duration such as "80m", "90s" or "24h", or a number of seconds'

    def _parse(self, text: str) -> int:
        return units.parse_duration(text)

    def _format(self, figure: int) -> str:
        return units.format_duration(figure)


class Size(_Figure):
    """A size, kept as bytes."""

    expects = 'a size such as "80MB", "256KB" or "1GiB", or a number of bytes'

    def _parse(self, text: str) -> int:
        return units.parse_size(text)

    def _format(self, figure: int) -> str:
        return units.format_size(figure)


class Choice(Kind):
    """One of some words.

    Args:
        values: The words.
    """

    def __init__(self, *values: str) -> None:
        self.values = values
        self.expects = " or ".join(f'"{value}"' for value in values)

    def of_text(self, text: str) -> str:
        """See the class."""
        word = text.strip()
        if word not in self.values:
            raise self.mismatch(text)
        return word


class NameList(Kind):
    """Names of columns, kept as a tuple.

    Args:
        at_most: How many there can be; None for any number.
        too_many: What to do where there are more.
    """

    scalar = False
    expects = 'a list of names such as ["movie_id", "title"]'

    def __init__(self, at_most: int | None = None, too_many: str | None = None) -> None:
        self.at_most = at_most
        self.too_many = too_many

    def of_text(self, text: str) -> tuple[str, ...]:
        """Read ``a,b`` or ``"odd, name",b``: a name with a comma or a quote stands in double quotes, as in SQL."""
        names_found = []
        for match in re.finditer(r'\s*("(?:[^"]|"")*"|[^,"]*)\s*(,|$)|(.)', text, re.DOTALL):
            if match[3] is not None:
                raise BadValue(
                    "is not a list of names with commas between them",
                    'Write a,b; a name with a comma or a quote in it stands in double quotes: "odd, name",b.',
                )
            name = match[1].strip()
            names_found.append(name[1:-1].replace('""', '"') if name.startswith('"') else name)
            if not match[2]:
                break
        return self._checked(names_found)

    def of_toml(self, value: object) -> tuple[str, ...]:
        """See the class."""
        if not isinstance(value, list):
            raise self.mismatch(value)
        for name in value:
            if not isinstance(name, str):
                raise BadValue(f"has to be {self.expects}; found a list with {found(name)} in it")
        return self._checked(value)

    def _checked(self, listed: list[str]) -> tuple[str, ...]:
        if not listed:
            raise BadValue("is an empty list", "Name at least one column, or leave the option out.")
        if not all(listed):
            raise BadValue("has an empty name in it")
        twice = next((name for name in listed if listed.count(name) > 1), None)
        if twice is not None:
            raise BadValue(f"names the column `{twice}` twice")
        if self.at_most is not None and len(listed) > self.at_most:
            raise BadValue(f"names {len(listed)} columns; at most {self.at_most} are possible", self.too_many)
        return tuple(listed)


class Tags(Kind):
    """A DynamoDB table's tags, kept as a read-only mapping. Their values are taken literally, never as references."""

    scalar = False
    expects = 'a table of texts such as { team = "data" }'

    def of_text(self, text: str) -> object:
        """No text gives tags."""
        raise self.mismatch(text)

    def of_toml(self, value: object) -> Mapping[str, str]:
        """See the class; the limits are those of DynamoDB's API reference (Tag, TagResource)."""
        if not isinstance(value, dict):
            raise self.mismatch(value)
        if len(value) > 50:
            raise BadValue(f"has {len(value)} tags; DynamoDB takes at most 50")
        for key, text in value.items():
            if not isinstance(text, str):
                raise BadValue(f"has to give the tag `{key}` a text in quotes; found {found(text)}")
            if not 1 <= len(key) <= 128 or len(text) > 256:
                raise BadValue(f"has the tag `{key[:40]}`, too long: a name has 1 to 128 characters, a value up to 256")
            if key.lower().startswith("aws:"):
                raise BadValue(f"has the tag `{key}`; names that start with aws: are AWS's own")
        return MappingProxyType(dict(value))


class _Map(Kind):
    """A table of TOML, kept as a read-only mapping. What stands in it is taken literally, never as a reference."""

    scalar = False

    def of_text(self, text: str) -> object:
        """No text gives a table."""
        raise self.mismatch(text)

    def of_toml(self, value: object) -> Mapping[str, object]:
        """See the class."""
        if not isinstance(value, dict):
            raise self.mismatch(value)
        if "" in value:
            raise BadValue("has an empty name in it")
        return MappingProxyType({name: self._value(name, content) for name, content in value.items()})

    @abstractmethod
    def _value(self, name: str, value: object) -> object:
        """Read what stands behind a name."""


class NameMap(_Map):
    """Columns to the names of attributes."""

    expects = 'a table of names such as { movie_id = "id" }'

    def _value(self, name: str, value: object) -> object:
        if not isinstance(value, str):
            raise BadValue(f"has to give `{name}` a name in quotes; found {found(value)}")
        if not value:
            raise BadValue(f"gives `{name}` an empty name")
        return value


class ChoiceMap(_Map):
    """Columns to one of some words.

    Args:
        values: The words.
    """

    def __init__(self, *values: str) -> None:
        self.values = values
        self.words = " or ".join(f'"{value}"' for value in values)
        self.expects = f'a table such as {{ movie_id = "{values[0]}" }}, of {self.words}'

    def _value(self, name: str, value: object) -> object:
        if value not in self.values:
            raise BadValue(f"has to give `{name}` {self.words}; found {found(value)}")
        return value


class Attributes(_Map):
    """Names of attributes to texts (templates, too), numbers, true or false. Numbers are exact."""

    expects = 'a table such as { sk = "RELEASE#{release_date}", version = 1 }'

    def _value(self, name: str, value: object) -> object:
        if not isinstance(value, str | bool | int | Decimal) or (isinstance(value, Decimal) and not value.is_finite()):
            raise BadValue(f"has to give `{name}` a text, a number, true or false; found {found(value)}")
        return value


class ShareOf(Kind):
    """A number or a percentage, kept as a ``Share``.

    Args:
        what: Of what, in words: ``rows``.
    """

    def __init__(self, what: str) -> None:
        self.expects = f'a number of {what}, or a percentage such as "50%"'

    def of_text(self, text: str) -> Share:
        """See ``parse_share``."""
        try:
            return units.parse_share(text)
        except ValueError:
            raise self.mismatch(text) from None

    def of_toml(self, value: object) -> Share:
        """A number without quotes is a number."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return Share(Decimal(value), is_percentage=False)
        if isinstance(value, str):
            return self.of_text(value)
        raise self.mismatch(value, 'A percentage stands in quotes: "50%".')


class OverlapAmount(Kind):
    """A duration or a number, kept as a ``Overlap``; which of them an incremental key takes is seen later."""

    expects = 'a duration such as "5m" for times, or a number for numbers'

    def of_text(self, text: str) -> Overlap:
        """See ``parse_overlap``."""
        try:
            return units.parse_overlap(text)
        except ValueError:
            raise self.mismatch(text) from None

    def of_toml(self, value: object) -> Overlap:
        """See the class."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return Overlap(value, is_duration=False)
        if isinstance(value, str):
            return self.of_text(value)
        raise self.mismatch(value)


class Price(Kind):
    """An amount of money, kept exactly."""

    expects = "a price in US dollars such as 0.625"

    def of_text(self, text: str) -> Decimal:
        """See the class."""
        try:
            return self._checked(Decimal(text.strip()), text)
        except InvalidOperation:
            raise self.mismatch(text) from None

    def of_toml(self, value: object) -> Decimal:
        """A number without quotes."""
        if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
            return self._checked(Decimal(value), value)
        raise self.mismatch(value)

    def _checked(self, price: Decimal, value: object) -> Decimal:
        if not price.is_finite() or price.is_signed():
            raise self.mismatch(value)
        return price


class FunctionName(Kind):
    """A Python function: ``module:function``."""

    expects = 'a Python function such as "my_transforms:clean"'

    def of_text(self, text: str) -> str:
        """See the class; whether there is such a function is seen when it is imported."""
        name = text.strip()
        module, colon, path = name.partition(":")
        if not colon or not all(part.isidentifier() for dotted in (module, path) for part in dotted.split(".")):
            raise self.mismatch(text)
        return name


class ResourceName(Kind):
    """The name of a cache or of a DynamoDB table: the rule is the same.

    Args:
        what: Which of them, in words.
    """

    def __init__(self, what: str) -> None:
        self.expects = f"{what}: {names.NAME_RULE}"

    def of_text(self, text: str) -> str:
        """See the class."""
        name = text.strip()
        if not names.is_valid_name(name):
            raise self.mismatch(text)
        return name


class Password(Kind):
    """A password as it stands, but for a line's end behind it, which files and stores of secrets may have added."""

    expects = "a password, as a text"
    shown = False

    def of_text(self, text: str) -> str:
        """See the class."""
        password = text.rstrip("\r\n")
        if not password.strip():
            raise BadValue("is empty", "Give it a text, or leave it out.")
        if "\0" in password:
            raise BadValue("has a NUL character in it")
        return password


class PostgresAddress(Kind):
    """A PostgreSQL URL, or libpq's ``host=... dbname=...``; empty for libpq's own environment variables alone."""

    expects = 'a PostgreSQL address such as "postgresql://user@host:5432/database"'
    shown = False

    def of_text(self, text: str) -> str | None:
        """See the class. The rest of its form is libpq's to check."""
        address = text.strip()
        if not address:
            return None
        scheme, separator, _ = address.partition("://")
        if (separator and scheme in ("postgresql", "postgres")) or (not separator and "=" in address):
            return address
        driver = re.fullmatch(r"(postgresql|postgres)\+[a-z0-9]+", scheme)
        raise self.mismatch(text, f"Take `{scheme[len(driver[1]) :]}` out of the address." if driver else None)


class Endpoint(Kind):
    """Momento's endpoint, kept as the SDK wants it."""

    expects = 'the endpoint that goes with the key, such as "cell-4-us-west-2-1.prod.a.momentohq.com"'
    # A key pasted into the wrong line stays out of messages.
    shown = False

    def of_text(self, text: str) -> str:
        """See ``parse_endpoint``."""
        try:
            return momento.parse_endpoint(text)
        except ValueError as error:
            raise BadValue(f"{error}; it has to be {self.expects}") from None


class HostPort(Kind):
    """``host:port`` of a local server, kept as text."""

    expects = 'host and port of a Momento Local, such as "127.0.0.1:8080"'
    shown = False

    def of_text(self, text: str) -> str:
        """See ``parse_host_port``."""
        try:
            host, port = momento.parse_host_port(text)
        except ValueError as error:
            hint = "Leave out the scheme: host:port alone." if "://" in text else None
            raise BadValue(f"{error}; it has to be {self.expects}", hint) from None
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class DynamoUrl(Kind):
    """The URL of a DynamoDB endpoint."""

    expects = 'a URL such as "http://127.0.0.1:8000"'
    shown = False

    def of_text(self, text: str) -> str:
        """See the class."""
        url = text.strip().rstrip("/")
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or any(character.isspace() for character in url):
            raise self.mismatch(text)
        if parts.username is not None:
            raise BadValue("has a user's name in it; credentials are found as boto3 finds them")
        if parts.path or parts.query or parts.fragment:
            raise BadValue(f"goes on after host and port; it has to be {self.expects}")
        return url
