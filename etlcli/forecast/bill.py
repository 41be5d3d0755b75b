"""What a run costs, and how long it takes at least, under given limits. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from etlcli.cache.metering import METERED_BYTES
from etlcli.config import PriceSettings, Settings
from etlcli.config.schema import SECTIONS
from etlcli.forecast.figures import Forecast
from etlcli.forecast.limits import Limits
from etlcli.forecast.remote import Remote

__all__ = ["Bill", "RemoteBill", "Timing", "make_bill", "make_remote_bill", "price_sources", "timing_of"]

_THOUSAND = 1_000
_MILLION = 1_000_000
_GIGABYTE = 2**30

_QUOTED = re.compile(r"as quoted on (\d{4}-\d\d-\d\d)")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a run takes under its limits at least: what the source needs comes on top where that is slower.

    Attributes:
        limits: The limits.
        momento_seconds: What Momento takes for the operations.
        write_seconds: What DynamoDB takes for the writes.
    """

    limits: Limits
    momento_seconds: float
    write_seconds: float

    @property
    def bounded_by(self) -> Literal["momento", "dynamodb"]:
        """The service that the run waits for."""
        return "momento" if self.momento_seconds >= self.write_seconds else "dynamodb"

    @property
    def seconds(self) -> float:
        """All of it."""
        return max(self.momento_seconds, self.write_seconds)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run costs, in US dollars.

    Attributes:
        dynamodb_write: Its write units.
        dynamodb_read: Its read units.
        momento_transfer: What it sends to Momento and receives, each element counted in whole operations.
    """

    dynamodb_write: Decimal
    dynamodb_read: Decimal
    momento_transfer: Decimal

    @property
    def total(self) -> Decimal:
        """The sum."""
        return self.dynamodb_write + self.dynamodb_read + self.momento_transfer


def timing_of(forecast: Forecast, limits: Limits) -> Timing:
    """Reckon how long a run takes at least."""
    return Timing(
        limits,
        momento_seconds=forecast.momento_operations / limits.momento_operations,
        write_seconds=forecast.write_units / limits.write_units,
    )


def make_bill(forecast: Forecast, prices: PriceSettings) -> Bill:
    """Reckon what a run costs: use times price, without free tiers."""
    return _services(forecast.write_units, forecast.read_units, forecast.momento_operations, prices)


@dataclass(frozen=True, slots=True)
class RemoteBill:
    """What a run by the Lambda functions costs, in US dollars.

    Attributes:
        services: DynamoDB and Momento. The state table's own few units are left out.
        lambda_compute: The functions' time.
        lambda_requests: Their calls.
        state_transitions: Step Functions' steps.
    """

    services: Bill
    lambda_compute: Decimal
    lambda_requests: Decimal
    state_transitions: Decimal

    @property
    def total(self) -> Decimal:
        """The sum."""
        return self.services.total + self.lambda_compute + self.lambda_requests + self.state_transitions


def make_remote_bill(remote: Remote, prices: PriceSettings) -> RemoteBill:
    """Reckon what a run by the Lambda functions costs: use times price, without free tiers."""
    return RemoteBill(
        _services(remote.work.write_units, remote.work.read_units, remote.momento_operations, prices),
        lambda_compute=prices.lambda_compute * Decimal(remote.gb_seconds) / _MILLION,
        lambda_requests=prices.lambda_requests * remote.lambda_calls / _MILLION,
        state_transitions=prices.state_transitions * remote.transitions / _THOUSAND,
    )


def _services(write_units: int, read_units: int, operations: int, prices: PriceSettings) -> Bill:
    return Bill(
        dynamodb_write=prices.dynamodb_write * write_units / _MILLION,
        dynamodb_read=prices.dynamodb_read * read_units / _MILLION,
        momento_transfer=prices.momento_transfer * operations * METERED_BYTES / _GIGABYTE,
    )


def price_sources(settings: Settings) -> dict[str, str]:
    """Tell where each price comes from: the place in the configuration, or the day that the default was quoted on."""
    sources = {}
    for option in SECTIONS["prices"].options.values():
        origin = settings.origins.get(option.path)
        quoted = _QUOTED.search(option.doc)
        assert quoted is not None, "every default says of which day it is"
        sources[option.name] = f"default, as of {quoted[1]}" if origin is None else origin.text
    return sources
