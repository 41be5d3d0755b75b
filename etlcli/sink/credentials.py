"""The credentials that the write path signs with, kept fresh without holding up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.credentials import Credentials as BotoCredentials
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from etlcli.errors import ConfigError, SinkLoginError, Unavailable
from etlcli.hidden import hide, masked

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

__all__ = ["Credentials"]

# So often botocore is asked; it decides by the time left whether to refresh (15 minutes: it tries, 10: it must).
_REFRESH_CHECK_SECONDS = 10.0

# A provider may run a program of the user's, for as long as that takes.
_PROVIDER_SECONDS = 60.0

# What a provider fails with that cannot give new credentials just now: besides botocore's errors those that it lets
# through, of credentials that have expired already, of a program that is not there or prints something else.
_PROVIDER_ERRORS = (BotoCoreError, ClientError, RuntimeError, ValueError, KeyError, OSError)


class Credentials:
    """Credentials to sign with. Refreshing happens in a thread, since botocore may call a network service for it.

    Made in a thread too: reading the first ones may block.

    Args:
        source: What botocore's chain found.
        resolve: Asks the whole chain anew; blocks; raises ConfigError where it finds none. It has to look with a new
            session: an old one keeps what it found, and a file or a sign-in may have changed meanwhile.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        source: BotoCredentials,
        resolve: Callable[[], BotoCredentials],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._clock = clock
        self._renewing = asyncio.Lock()
        self._source = source
        self._frozen: ReadOnlyCredentials = _hidden(source.get_frozen_credentials())
        self._check_at = clock() + _REFRESH_CHECK_SECONDS

    async def current(self) -> ReadOnlyCredentials:
        """The credentials to sign a request with now; the same object until they change."""
        if isinstance(self._source, RefreshableCredentials) and self._clock() >= self._check_at:
            # Set before the wait: the others sign on with what they have, which is good for some minutes more.
            self._check_at = self._clock() + _REFRESH_CHECK_SECONDS
            try:
                async with asyncio.timeout(_PROVIDER_SECONDS):
                    fresh = await asyncio.to_thread(self._source.get_frozen_credentials)
            except _PROVIDER_ERRORS:
                # Not fatal yet. Once they have really expired DynamoDB says so, and `renew` finds out what is wrong.
                return self._frozen
            if fresh != self._frozen:
                self._frozen = _hidden(fresh)
        return self._frozen

    async def renew(self, refused: ReadOnlyCredentials) -> None:
        """Ask the whole chain again, since DynamoDB calls these credentials expired.

        Raises:
            SinkLoginError: The chain finds none any more.
            Unavailable: Whoever gives them does not do so just now.
        """
        async with self._renewing:
            if self._frozen is not refused:
                return  # somebody else has done it
            try:
                async with asyncio.timeout(_PROVIDER_SECONDS):
                    self._source, self._frozen = await asyncio.to_thread(self._ask_chain)
            except ConfigError as error:
                message = f"the AWS credentials have expired, and no new ones are found: {error.message}"
                raise SinkLoginError(message, hint=error.hint) from error
            except _PROVIDER_ERRORS as error:
                reason = masked(str(error)) or type(error).__name__
                raise Unavailable(
                    f"the AWS credentials have expired, and new ones cannot be had just now: {reason}",
                    hint="sign in again, or see to what gives them (credential_process, the metadata service); then run"
                    " the same command: it resumes",
                    of_service=True,
                ) from error
            self._check_at = self._clock() + _REFRESH_CHECK_SECONDS

    def for_boto3(self) -> BotoCredentials:
        """The same credentials for a boto3 client, which follow when they are renewed."""
        return _Followed(self)

    def frozen(self) -> ReadOnlyCredentials:
        """The credentials as the provider has them now; blocks where it has to refresh them."""
        return _hidden(self._source.get_frozen_credentials())

    def _ask_chain(self) -> tuple[BotoCredentials, ReadOnlyCredentials]:
        source = self._resolve()
        return source, _hidden(source.get_frozen_credentials())


def _hidden(credentials: ReadOnlyCredentials) -> ReadOnlyCredentials:
    """See to it that none of them is ever shown."""
    hide(credentials.secret_key, credentials.token)
    return credentials


class _Followed(BotoCredentials):
    """What a boto3 client asks each time that it signs."""

    def __init__(self, followed: Credentials) -> None:
        first = followed.frozen()
        super().__init__(str(first.access_key), str(first.secret_key), first.token)
        # Newer versions of botocore know it, and may make the endpoint of it.
        self.account_id = getattr(first, "account_id", None)
        self._followed = followed

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Those that are good now."""
        return self._followed.frozen()
