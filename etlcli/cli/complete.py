"""What a shell is offered behind an option: jobs of the config, tables of the source, words.

A person waits at a prompt: what is slow, wrong or missing is passed over in silence. The shell would print what is
written here, and its user has asked for nothing yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from etlcli.config import Settings

__all__ = ["jobs", "tables", "words"]

_SECONDS = 2.0
"""How long the source is waited for, which includes the time that it takes to connect."""

_MOST = 500
# What the embedded stack's PostgreSQL is made with.
_SAMPLE = "movies"


def words(*values: str) -> Callable[[str], list[str]]:
    """Offer one of some words."""

    def offer(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return offer


def jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the jobs of the config."""
    settings = _settings(ctx.params)
    return _matching(_jobs(settings), incomplete)


def tables(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the jobs of the config, then the tables that the source has and its user may read."""
    settings = _settings(ctx.params)
    found = _jobs(settings)
    if ctx.params.get("local"):
        found.append(_SAMPLE)
    elif settings is not None and settings.source is not None:
        found += _asked(lambda: _tables(settings))
    return _matching(found, incomplete)


def _matching(names: list[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete) and name.isprintable()][:_MOST]


def _jobs(settings: Settings | None) -> list[str]:
    return [] if settings is None else list(settings.tables)


def _settings(given: dict[str, Any]) -> Settings | None:
    from etlcli.config import load_settings, with_source

    try:
        settings = load_settings(given.get("config"))
        address = given.get("source_url")
        return with_source(settings, address, os.environ) if address else settings
    except Exception:  # noqa: BLE001  whatever is wrong with the config, a command that uses it tells
        return None


def _tables(settings: Settings) -> list[str]:
    from etlcli import wiring

    return wiring.tables_to_offer(settings, _SECONDS, _MOST)


def _asked(ask: Callable[[], list[str]]) -> list[str]:
    """Ask something that may not answer: in a thread that nobody waits for past the time."""
    import threading

    answers: list[list[str]] = []

    def work() -> None:
        try:
            answers.append(ask())
        except Exception:  # noqa: BLE001  as above
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answers[0] if answers else []
