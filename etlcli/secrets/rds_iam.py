"""Tokens that stand in for a password of RDS, made of AWS credentials without asking anybody.

They are good for logging in for 15 minutes, and a long run connects more than once: each connection has its own.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from etlcli.config.references import Surroundings
from etlcli.hidden import hide
from etlcli.secrets.session import new_session, region_of, translating

if TYPE_CHECKING:
    from etlcli.source.login import Login

__all__ = ["RdsTokens"]

# name.random.REGION.rds.amazonaws.com, of instances, clusters and proxies; in China .com.cn.
_IN_HOST = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com(?:\.cn)?\.?", re.IGNORECASE)


class RdsTokens:
    """Makes a token for each connection; a ``TokenMaker``.

    Args:
        region: Where the database is, unless its host's name says it; None as boto3 finds it.
        profile: Whose credentials; None as boto3 finds them.
    """

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        self._surroundings = Surroundings(region, profile)
        self._lock = threading.Lock()
        # Kept, as it refreshes its credentials by itself, and finding them may take a network service.
        self._client: Any = None

    def __call__(self, login: Login) -> str:
        """Make a token, and hide it from all output; blocks where credentials have to be refreshed.

        Raises:
            ConfigError: No region, no credentials, no such profile.
            Unavailable: What should give credentials does not just now.
        """
        with self._lock, translating(f'password = "rds-iam" for {login.user}@{login.host}'):
            if self._client is None:
                self._client = self._connected(login.host)
            token = str(
                self._client.generate_db_auth_token(DBHostname=login.host, Port=login.port, DBUsername=login.user)
            )
        hide(token)
        return token

    def _connected(self, host: str) -> Any:
        """A client for the region of a host; it asks nobody anything."""
        session = new_session(self._surroundings)
        in_host = _IN_HOST.search(host)
        region = region_of(session, in_host[1].lower() if in_host else None, self._surroundings.region)
        return session.create_client("rds", region_name=region)
