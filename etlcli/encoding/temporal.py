"""Dates and times: S in ISO 8601.

Under the pinned settings (``DateStyle=ISO, IntervalStyle=iso_8601, TimeZone=UTC``) dates, times and intervals are ISO
8601 already, so the string family writes them; timestamps lack its ``T`` and its ``Z``. Dates before Christ and
infinite ones keep PostgreSQL's own text (``0044-03-15 12:00:00+00 BC``, ``infinity``).
"""

from __future__ import annotations

import re
from typing import Final

from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, register, shorten
from etlcli.encoding.text import Text
from etlcli.errors import SourceError
from etlcli.model import AttributeType, PgType

__all__ = ["EpochSeconds", "Timestamp", "TimestampInUtc"]

_INFINITE: Final = frozenset((b"infinity", b"-infinity"))
_HINT: Final = "The session must pin DateStyle to ISO and TimeZone to UTC."


class Timestamp(ValueEncoder):
    """S: ``2024-02-29 10:15:00.5`` becomes ``2024-02-29T10:15:00.5``."""

    head = b'{"S":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "S"

    def content(self, text: bytes) -> bytes:
        """Put the ``T`` in."""
        if text in _INFINITE or text.endswith(b" BC"):
            return text
        return text.replace(b" ", b"T")

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Put all of a column's in at once, where none is infinite or before Christ."""
        joined = b"\t".join(cells)
        if b"C" in joined or b"y" in joined:
            return self.each(cells)
        return joined.replace(b" ", b"T").split(b"\t")


class TimestampInUtc(ValueEncoder):
    """S: ``2024-02-29 10:15:00.5+00`` becomes ``2024-02-29T10:15:00.5Z``."""

    head = b'{"S":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "S"

    def content(self, text: bytes) -> bytes:
        """Put the ``T`` and the ``Z`` in.

        Raises:
            SourceError: The time is not in UTC, so the session's settings are not what they should be.
        """
        if text in _INFINITE or text.endswith(b"+00 BC"):
            return text
        if not text.endswith(b"+00"):
            raise SourceError(f"{shorten(text)} is not a time in UTC", hint=_HINT)
        return text[:-3].replace(b" ", b"T") + b"Z"

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Put all of a column's in at once, where none is infinite or before Christ."""
        joined = b"\t".join(cells) + b"\t"
        if joined.count(b"+00\t") != len(cells):
            return self.each(cells)
        return joined.replace(b" ", b"T").replace(b"+00\t", b"Z\t").split(b"\t")[:-1]


_PARTS: Final = re.compile(rb"(\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?\+00( BC)?")


def _days_since_1970(year: int, month: int, day: int) -> int:
    """Count days in the proleptic Gregorian calendar, which is PostgreSQL's; the year 0 is 1 BC.

    ``datetime`` ends at the years 1 and 9999. The months are counted from March, so that a leap day comes last.
    """
    year -= month < 3
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468


class EpochSeconds(ValueEncoder):
    """N: seconds since 1970-01-01 00:00 UTC, negative before, with the fraction exact to PostgreSQL's microsecond."""

    head = b'{"N":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "N"

    def content(self, text: bytes) -> bytes:
        """Count the seconds.

        Raises:
            Unrepresentable: ``number-not-finite`` for infinite times.
            SourceError: The time is not in UTC, so the session's settings are not what they should be.
        """
        if text in _INFINITE:
            raise Unrepresentable("number-not-finite", f"{shorten(text)} has no number of seconds")
        matched = _PARTS.fullmatch(text)
        if matched is None:
            raise SourceError(f"{shorten(text)} is not a time in UTC", hint=_HINT)
        year, month, day, hour, minute, second = map(int, matched.groups()[:6])
        days = _days_since_1970(1 - year if matched[8] else year, month, day)
        seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
        if not (fraction := (matched[7] or b"").rstrip(b"0")):
            return b"%d" % seconds
        microseconds = seconds * 1_000_000 + int(fraction.ljust(6, b"0"))
        whole, rest = divmod(abs(microseconds), 1_000_000)
        return b"%b%d.%b" % (b"-" if microseconds < 0 else b"", whole, (b"%06d" % rest).rstrip(b"0"))


@register("timestamp")
def _timestamp(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Timestamp()


@register("timestamptz")
def _timestamp_in_utc(_pg_type: PgType, options: EncodingOptions) -> ValueEncoder:
    return EpochSeconds() if options.timestamps_as == "epoch" else TimestampInUtc()


@register("date", "time", "timetz", "interval")
def _iso_already(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Text()
