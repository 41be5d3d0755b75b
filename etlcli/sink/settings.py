"""Where DynamoDB is and as whom to talk to it, as the configuration says it. Imports no SDK."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DynamoDBSettings"]


@dataclass(frozen=True, slots=True)
class DynamoDBSettings:
    """What the configuration says of DynamoDB; whatever is None is found as boto3 finds it.

    Attributes:
        region: The AWS region, for example ``eu-west-1``.
        endpoint_url: A server of the user's choice, for example ``http://127.0.0.1:8000``.
        profile: A profile's name in the AWS configuration files.
        access_key_id: Fixed credentials, for the embedded stack only; with ``secret_access_key`` or not at all.
        secret_access_key: The other half.
    """

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
