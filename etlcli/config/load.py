"""File and environment into ``Settings``: the environment beats the file, and all that is wrong is told at once.

What is wrong with the file, or with a variable of this package's own, is an error at once. What depends on where the
command runs (a reference to a missing variable, a ``DATABASE_URL`` that was meant for another program) is kept until
the section is used: ``load`` does not fail for a password that only ``extract`` needs. For the same reason a value that
AWS keeps is not looked up here, but left open (see ``lookup``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etlcli.config.document import CONFIG_VARIABLE, Document, find_file, read_file
from etlcli.config.kinds import BadValue
from etlcli.config.lookup import misfit, read_text
from etlcli.config.outline import Outline, header
from etlcli.config.problems import Problem, as_error
from etlcli.config.references import Resolver, Surroundings, is_reference, is_remote, of_environment, refuse
from etlcli.config.schema import (
    LIBPQ_VARIABLES,
    PREFIX,
    SECTIONS,
    CacheSettings,
    DestinationSettings,
    Option,
    PriceSettings,
    Section,
    SourceSettings,
    StateSettings,
    TableSettings,
)
from etlcli.config.settings import HALVES, Open, Origin, Settings
from etlcli.config.suggest import did_you_mean, listed
from etlcli.errors import ConfigError

__all__ = ["load_settings"]

# Variables of this package that are no options.
_OTHER_VARIABLES = (CONFIG_VARIABLE, "MOMENTO_ETL_LOCAL_DIR")
_TEST_PREFIX = f"{PREFIX}TEST_"

# What reading a value answers where there is none, since None and "" are values.
_NOTHING: Any = object()


def load_settings(
    config: str | None = None,
    *,
    local: bool = False,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    resolver: Resolver = refuse,
) -> Settings:
    """Read the configuration that a command runs under.

    Args:
        config: What ``--config`` gave.
        local: Whether ``--local`` was given.
        environ: The environment; the process's own by default. A variable set to the empty string counts as unset.
        folder: The folder the command runs in; the process's own by default.
        resolver: Looks up what AWS keeps (``ssm:/name``, ``secretsmanager:name``), once a section is used.

    Raises:
        ConfigError: The file is missing or not a config, or values are wrong; all of these are in one message.
    """
    present = {name: value for name, value in (os.environ if environ is None else environ).items() if value.strip()}
    path = find_file(config, present, folder or Path.cwd())
    return _Loader(present, read_file(path) if path else None, resolver).load(local=local)


class _Loader:
    """One reading: what it comes to, and what it finds wrong on the way."""

    def __init__(self, environ: Mapping[str, str], document: Document | None, resolver: Resolver) -> None:
        self.environ = environ
        self.document = document
        self.resolver = resolver
        self.problems: list[Problem] = []
        self.deferred: dict[str, Problem] = {}
        self.open_values: dict[str, Open] = {}
        self.origins: dict[str, Origin] = {}
        self.notices: list[str] = []

    def load(self, *, local: bool) -> Settings:
        """Read it all.

        Raises:
            ConfigError: Values are wrong.
        """
        outline = Outline(self.document)
        self.problems += outline.problems
        source, cache, destination, state, prices = (
            self._section(SECTIONS[name], outline.sections.get(name, {})) for name in (*HALVES, "state", "prices")
        )
        tables = {name: self._table(name, written) for name, written in outline.tables.items()}
        self._check_variables()
        if self.problems:
            raise as_error(self.problems)
        self._choose_cache(cache)
        libpq = tuple(name for name in LIBPQ_VARIABLES if name in self.environ)
        return Settings(
            source=SourceSettings(**source) if source or libpq else None,
            cache=CacheSettings(**cache),
            destination=DestinationSettings(**destination),
            state=StateSettings(**state),
            prices=PriceSettings(**prices),
            tables=MappingProxyType(tables),
            config_path=self.document.path if self.document else None,
            local=local,
            origins=MappingProxyType(self.origins),
            notices=tuple(self.notices),
            deferred=MappingProxyType(self.deferred),
            libpq=libpq,
            aws_config=_aws_config(self.environ),
            open_values=MappingProxyType(self.open_values),
            resolver=self.resolver,
            surroundings=Surroundings(destination.get("region"), destination.get("profile")),
        )

    def _section(self, section: Section, written: Mapping[str, Any]) -> dict[str, Any]:
        """Read the values of a section from environment and file."""
        values = {}
        for option in section.options.values():
            variable = next((name for name in option.environment if name in self.environ), None)
            value = _NOTHING
            if variable is not None:
                # A variable that other programs use too may be meant for them: it is judged when it is needed.
                origin = Origin("environment", variable)
                value = self._read(
                    option, self.environ[variable], option.path, origin, defer=not option.is_own(variable)
                )
                if option.name in written:
                    self._overridden(option, written[option.name], variable, value)
            elif option.name in written:
                value = self._from_file(option, (section.name, option.name), written[option.name])
            if value is not _NOTHING:
                values[option.name] = value
        return values

    def _table(self, name: str, written: Mapping[str, Any]) -> TableSettings:
        section = SECTIONS["tables"]
        values = {}
        for key, raw in written.items():
            value = self._from_file(section.options[key], (section.name, name, key), raw)
            if value is not _NOTHING:
                values[key] = value
        if "source" in written and "query" in written:
            assert self.document is not None
            path = (section.name, name, "query")
            message = f"{header(section, name)} has both `source` and `query`"
            hint = "Keep one of them: a job reads a table or a query."
            self.problems.append(self.document.problem(path, message, hint))
        return TableSettings(**values)

    def _from_file(self, option: Option, path: tuple[str, ...], value: object) -> Any:
        return self._read(option, value, ".".join(path), self._file_origin(option, path), defer=False)

    def _file_origin(self, option: Option, path: tuple[str, ...]) -> Origin:
        assert self.document is not None
        text = f"{self.document.place(*path)}: `{option.name}` in {header(SECTIONS[option.section], path[-2])}"
        return Origin("file", text, self.document.lines.get(path))

    def _read(self, option: Option, value: object, path: str, origin: Origin, *, defer: bool) -> Any:
        """Read one value; what is wrong with it becomes a problem, of now or of later."""
        reference = value.strip() if isinstance(value, str) and option.kind.scalar else ""
        if is_remote(reference):
            self.open_values[path] = Open(option, reference, origin)
            self.origins[path] = origin
            return _NOTHING
        try:
            if is_reference(reference):
                defer = True
                result = read_text(option, reference, of_environment(reference, self.environ))
            elif origin.level == "file":
                result = option.kind.of_toml(value)
            else:
                result = option.kind.of_text(str(value))
        except BadValue as error:
            problem = misfit(option, origin, error)
        except ConfigError as error:
            problem = Problem(f"{origin.text}: {error.message}", error.hint, origin.line)
        else:
            if result is None:
                return _NOTHING
            self.origins[path] = origin
            return result
        if defer:
            self.deferred[path] = problem
            self.origins[path] = origin
        else:
            self.problems.append(problem)
        return _NOTHING

    def _overridden(self, option: Option, written: object, variable: str, value: object) -> None:
        """Check the file's value that does not count, and say so where the variable may not have been meant for us."""
        origin = self._file_origin(option, (option.section, option.name))
        if isinstance(written, str) and is_reference(written.strip()):
            same = written.strip() == f"env:{variable}"
        else:
            try:
                counted = option.kind.of_toml(written)
            except BadValue as error:
                self.problems.append(misfit(option, origin, error))
                return
            same = counted is None or counted == value
        if not same and not option.is_own(variable):
            self.notices.append(f"{variable} overrides {origin.text}")

    def _choose_cache(self, values: dict[str, Any]) -> None:
        """Of a real Momento and a local one, keep the one that was given at the higher level."""
        key, local = self.origins.get("cache.api_key"), self.origins.get("cache.local")
        if key is None or local is None:
            return
        if key.level == local.level:
            self.deferred["cache.local"] = Problem(
                f"two caches are configured: {key.text}, and {local.text}",
                "Keep the key for Momento itself, or `local` for a Momento Local.",
            )
            return
        winner, loser, dropped = (
            (key, local, ("local",)) if key.level == "environment" else (local, key, ("api_key", "endpoint"))
        )
        for name in dropped:
            values.pop(name, None)
            self.origins.pop(f"cache.{name}", None)
            self.deferred.pop(f"cache.{name}", None)
            self.open_values.pop(f"cache.{name}", None)
        self.notices.append(f"{winner.text} overrides {loser.text}")

    def _check_variables(self) -> None:
        """Look for mistyped variables of this package's own."""
        known = [
            name
            for section in SECTIONS.values()
            for option in section.options.values()
            for name in option.environment
            if name.startswith(PREFIX)
        ]
        for name in sorted(self.environ):
            if (
                not name.startswith(PREFIX)
                or name in known
                or name in _OTHER_VARIABLES
                or name.startswith(_TEST_PREFIX)
            ):
                continue
            near = did_you_mean(name, [*known, CONFIG_VARIABLE])
            if name.startswith(f"{PREFIX}TABLES_"):
                near, hint = "", "What belongs to one job is set in the file, below [tables.NAME], or by options."
            elif near:
                hint = "config.example.toml lists each option's variables. Correct or unset this one."
            else:
                hint = f"Unset it. There are: {listed([*known, CONFIG_VARIABLE])}."
            self.problems.append(Problem(f"unknown environment variable {name}{near}", hint))


def _aws_config(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("AWS_CONFIG_FILE")
    if named is None:
        home = environ.get("HOME")
        if home is None:
            return None
        named = f"{home}/.aws/config"
    path = Path(os.path.expanduser(named))  # noqa: PTH111  Path.expanduser raises where there is no home
    return path if os.path.isfile(path) else None  # noqa: PTH113  Path.is_file raises where the folder is closed
