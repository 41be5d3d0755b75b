"""What the config's references stand for: each is asked for once in a process, and again once it is forgotten.

A process that lives long keeps one ``AwsSecrets``, and reads its secrets anew where a service no longer takes them::

    secrets = AwsSecrets()

    def settings() -> Settings:
        return require(load_settings(resolver=secrets), source=True, cache=True, destination=True)

    try:
        work(settings())
    except AuthenticationError:
        secrets.forget()
        work(settings())  # what is refused now is refused for good
"""

from __future__ import annotations

import json
import threading

from etlcli.config.references import Reference, Surroundings
from etlcli.config.suggest import listed
from etlcli.errors import ConfigError
from etlcli.hidden import hide, hide_within

__all__ = ["AwsSecrets"]

# Names of fields are shown up to this length: a key or a token that was put in the place of a name is mostly longer.
_LONGEST_FIELD = 32
_MOST_FIELDS = 20


class AwsSecrets:
    """Looks up references; what it has found it keeps until ``forget``. A ``Resolver``, as ``load_settings`` takes it.

    Several references to fields of one secret ask for it once. What could not be had is asked for again. May be called
    from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str, Surroundings], str] = {}

    def __call__(self, reference: Reference, surroundings: Surroundings) -> str:
        """Find what a reference stands for; blocks, for a minute at the very most.

        Raises:
            ConfigError: It does not exist, may not be read, or is not what the reference says; or AWS cannot be asked.
            Unavailable: AWS does not answer just now.
        """
        key = (reference.store, reference.name, surroundings)
        with self._lock:
            text = self._found.get(key)
            if text is None:
                from etlcli.secrets.asking import ask

                text = self._found[key] = ask(reference, surroundings)
        return text if reference.field is None else _field(reference, text)

    def forget(self) -> None:
        """Have each value asked for again when it is next needed. What was found stays hidden from all output."""
        with self._lock:
            self._found.clear()


def _field(reference: Reference, text: str) -> str:
    """Take a field out of a secret's JSON; a number as it is written there.

    Raises:
        ConfigError: There is no such field, or it is not one text.
    """
    assert reference.field is not None
    whole = f"secretsmanager:{reference.name}"
    try:
        document = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(
            f"{reference} names a field, and the secret is not a JSON object",
            hint=f"Refer to all of it: {whole}. Or store an object of fields: {{{json.dumps(reference.field)}: ...}}",
        )
    if reference.field not in document:
        raise ConfigError(
            f"{reference} names a field that the secret does not have", hint=f"Its fields: {_names(list(document))}."
        )
    value = document[reference.field]
    if isinstance(value, bool):
        value = json.dumps(value)
    if not isinstance(value, str):
        kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
        raise ConfigError(
            f"{reference} is {kind}, where a text or a number has to be", hint="Store the value itself in a field."
        )
    if not value.strip():
        raise ConfigError(f"{reference} is empty", hint="Give the field a value.")
    hide(value)
    hide_within(value)
    return value


def _names(fields: list[str]) -> str:
    """Name fields, but for what may be a value in the wrong place."""
    shown = [name for name in fields if name.isprintable() and 0 < len(name) <= _LONGEST_FIELD][:_MOST_FIELDS]
    more = len(fields) - len(shown)
    if not shown:
        return f"{more}, of other names" if more else "none"
    return listed(shown) + (f" and {more} more" if more else "")
