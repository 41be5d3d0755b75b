"""``init``: a first config file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer
from etlcli.cli.output import Output, OutputFormat
from etlcli.config import load_settings
from etlcli.config.document import FILE_NAME
from etlcli.config.initial import found_in, initial_file, missing_variables, option_at, without_password
from etlcli.config.kinds import BadValue
from etlcli.config.momento import key_form
from etlcli.config.names import job_name
from etlcli.config.references import is_reference
from etlcli.errors import ConfigError, UsageError
from etlcli.hidden import hide, hide_within
from etlcli.report import Report

__all__ = ["init"]

_PANEL = "What it says"
_FLAGS = {
    "source.url": "--source",
    "cache.api_key": "--momento-key",
    "cache.endpoint": "--momento-endpoint",
    "cache.local": "--momento-local",
    "cache.name": "--cache",
    "destination.region": "--region",
    "destination.profile": "--profile",
    "destination.endpoint_url": "--endpoint-url",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Source: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="URL",
        help="Where PostgreSQL is. A password in it is not written.",
        rich_help_panel=_PANEL,
    ),
]
MomentoKey: TypeAlias = Annotated[
    str | None,
    typer.Option("--momento-key", metavar="env:NAME", help="What holds the Momento API key.", rich_help_panel=_PANEL),
]
MomentoEndpoint: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--momento-endpoint", metavar="HOST", help="The endpoint that goes with a v2 key.", rich_help_panel=_PANEL
    ),
]
MomentoLocal: TypeAlias = Annotated[
    str | None,
    typer.Option("--momento-local", metavar="HOST:PORT", help="A Momento Local in its place.", rich_help_panel=_PANEL),
]
Region: TypeAlias = Annotated[
    str | None, typer.Option("--region", metavar="NAME", help="The AWS region.", rich_help_panel=_PANEL)
]
Profile: TypeAlias = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="The AWS profile.", rich_help_panel=_PANEL)
]
EndpointUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--endpoint-url", metavar="URL", help="Another DynamoDB than AWS's.", rich_help_panel=_PANEL),
]
CacheName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="NAME", help="One cache for all jobs. \\[default: one for each]", rich_help_panel=_PANEL
    ),
]
Tables: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        "-t",
        metavar="NAME",
        help="A table that becomes a job. Can be repeated.",
        autocompletion=complete.tables,
        rich_help_panel=_PANEL,
    ),
]
File: TypeAlias = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="The file to write. \\[default: momento-etl.toml here]"),
]


def init(
    source: Source = None,
    momento_key: MomentoKey = None,
    momento_endpoint: MomentoEndpoint = None,
    momento_local: MomentoLocal = None,
    region: Region = None,
    profile: Profile = None,
    endpoint_url: EndpointUrl = None,
    cache: CacheName = None,
    table: Tables = None,
    config: File = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what is given and found will do.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    write_secrets: Annotated[
        bool, typer.Option("--write-secrets", help="Write passwords and keys as they are given.")
    ] = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a config file: from what the environment has, and from what is answered or given.

    What stands in DATABASE_URL, MOMENTO_* and AWS_* is referred to by env:NAME,
    never copied; PG* stays libpq's to read. Without options it asks, at a
    terminal.

    Examples:
      momento-etl init
      momento-etl init --yes --table movies
      momento-etl init --source postgresql://user@host/db --region eu-west-1
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)
    given = {
        "source.url": source,
        "cache.api_key": momento_key,
        "cache.endpoint": momento_endpoint,
        "cache.local": momento_local,
        "cache.name": cache,
        "destination.region": region,
        "destination.profile": profile,
        "destination.endpoint_url": endpoint_url,
    }

    def work(_report: Report) -> dict[str, Any]:
        target = Path(config if config is not None else FILE_NAME).expanduser()
        _refuse_existing(target, force=force)
        chosen = {path: text for path, text in given.items() if text is not None}
        hide(momento_key)
        hide_within(source)
        for path, text in chosen.items():
            _check(path, text, _FLAGS[path])
        for name in table or ():
            job_name(name)
        values = {**found_in(os.environ), **chosen}
        if "cache.local" in chosen and "cache.api_key" not in chosen:
            values.pop("cache.api_key", None)
            values.pop("cache.endpoint", None)
        tables = list(table or ())
        if not yes and not chosen and not table:
            _require_terminal()
            tables = _ask(speaker, values)
        _keep_secrets(speaker, values, write_secrets=write_secrets)
        return _written(speaker, target, values, tables, force=force, named=config)

    answer("init", speaker, work)


def _refuse_existing(target: Path, *, force: bool) -> None:
    if os.path.lexists(target) and not force:
        raise UsageError(f"{target} is there already", hint="Name another file with --config, or add --force.")


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "there is no terminal to ask at",
            hint="Give what it shall say by options (momento-etl init --help), or add --yes to take what the"
            " environment has.",
        )


def _check(path: str, text: str, flag: str) -> None:
    """Refuse what the config would not take.

    Raises:
        UsageError: It would not.
    """
    option = option_at(path)
    if is_reference(text.strip()):
        return
    try:
        option.kind.of_text(text)
    except BadValue as error:
        hint = error.hint or f"For example: {flag} {option.example_text()}"
        raise UsageError(f"{flag} {error.problem}", hint=hint) from None


def _ask(speaker: Output, values: dict[str, str]) -> list[str]:
    """Ask for what has a place in the file; an empty answer leaves it out. Gives the tables."""
    speaker.note("Each answer can be env:NAME, which reads it from the environment. Empty leaves it out.")
    try:
        _ask_for(speaker, values, "source.url", "PostgreSQL's URL")
        if "cache.local" not in values:
            _ask_for_key(speaker, values)
            if "cache.api_key" in values:
                _ask_for(speaker, values, "cache.endpoint", "Momento's endpoint (a legacy key has none)")
        _ask_for(speaker, values, "destination.region", "AWS region")
        answered = typer.prompt("Tables, with commas between them", default="", show_default=False, err=True)
    except typer.Abort:
        raise UsageError("not all questions were answered", hint="Nothing was written.") from None
    tables = [name.strip() for name in answered.split(",") if name.strip()]
    for name in tables:
        job_name(name)
    return tables


def _ask_for(speaker: Output, values: dict[str, str], path: str, question: str) -> None:
    while True:
        text = _prompt(question, values.get(path, ""))
        if not text:
            values.pop(path, None)
            return
        try:
            _check(path, text, "It")
        except UsageError as error:
            speaker.error(error)
            continue
        if path == "source.url":
            hide_within(text)
        values[path] = text
        return


def _ask_for_key(speaker: Output, values: dict[str, str]) -> None:
    """Ask for the variable that holds the key: a key itself would be on the screen, and in the file."""
    while True:
        text = _prompt("Environment variable with the Momento API key", values.get("cache.api_key", "")[len("env:") :])
        name = text.removeprefix("env:")
        if not name:
            values.pop("cache.api_key", None)
            return
        if _VARIABLE.fullmatch(name) and key_form(name) is None:
            values["cache.api_key"] = f"env:{name}"
            return
        hide(text)
        speaker.warn("this is no variable's name; put the key into one: export MOMENTO_API_KEY=...")


def _prompt(question: str, default: str) -> str:
    text: str = typer.prompt(question, default=default, show_default=bool(default), err=True)
    return text.strip()


def _keep_secrets(speaker: Output, values: dict[str, str], *, write_secrets: bool) -> None:
    """Put references in the place of secrets, unless these are to be written."""
    if write_secrets:
        return
    address = values.get("source.url", "")
    bare = without_password(address)
    if bare != address:
        values["source.url"] = bare
        speaker.note("The password is not written: put it into PGPASSWORD or ~/.pgpass, or add --write-secrets.")
    key = values.get("cache.api_key", "")
    if key and not is_reference(key):
        values["cache.api_key"] = "env:MOMENTO_API_KEY"
        speaker.note("The API key is not written: put it into MOMENTO_API_KEY, or add --write-secrets.")


def _written(
    speaker: Output, target: Path, values: Mapping[str, str], tables: list[str], *, force: bool, named: str | None
) -> dict[str, Any]:
    """Write the file, once it has been read as a config."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    overwritten = os.path.lexists(target)
    try:
        # Nobody else's business, in case it has secrets.
        draft.touch(0o600, exist_ok=False)
        draft.write_text(initial_file(values, tables, os.environ), encoding="utf-8")
        load_settings(str(draft.absolute()), environ={})
        if force:
            draft.replace(target)
        else:
            os.link(draft, target)  # refuses what has come to be there meanwhile
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be written: {error.strerror or error}", hint="Name another file with --config."
        ) from None
    finally:
        with suppress(OSError):
            draft.unlink()
    missing = missing_variables(values, os.environ)
    if missing:
        speaker.note(f"Not set yet: {', '.join(missing)}")
    speaker.data(f"Wrote {target}. Next: momento-etl doctor{options.written(config=named)}")
    return {"config_file": str(target), "overwritten": overwritten, "missing_variables": missing}
