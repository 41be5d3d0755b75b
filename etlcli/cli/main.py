"""The console script: the commands in one place, and what happens before and after each of them."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import click
import typer

from etlcli import __version__
from etlcli.cli import local
from etlcli.cli.create_table import create_table
from etlcli.cli.inspect_cache import inspect_cache
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.transfer import extract, load, run
from etlcli.errors import ExitCode, UsageError
from etlcli.report import Report
from etlcli.summary import summarize

__all__ = ["app", "main"]

app = typer.Typer(
    name="momento-etl",
    help="Moves table rows from PostgreSQL through a named Momento cache into DynamoDB.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(extract)
app.command()(load)
app.command("inspect-cache")(inspect_cache)
app.command("create-table")(create_table)
app.add_typer(local.app, name="local")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"momento-etl {__version__}\n")
        raise typer.Exit


@app.callback()
def _before(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line, and exit with one of the codes of ``etlcli.errors.ExitCode``."""
    arguments = sys.argv[1:]
    _quieten(verbose="--verbose" in arguments or "-v" in arguments)
    try:
        code = app(args=arguments, prog_name="momento-etl", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = ExitCode.USAGE
    except click.ClickException as error:
        code = _usage(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        code = ExitCode.SIGINT
    except BrokenPipeError:
        # Whoever read our output is gone; so that the interpreter does not complain about it once more at its end:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.FAILED
    sys.exit(int(code or 0))


def _usage(error: click.ClickException, arguments: list[str]) -> ExitCode:
    """Tell a mistyped command line, as JSON too where that was asked for."""
    form = _asked_form(arguments)
    output = Output(form)
    context = getattr(error, "ctx", None)
    command = context.command_path.partition(" ")[2] if context is not None else ""
    help_of = f"momento-etl {command}".strip()
    failure = UsageError(error.format_message(), hint=f"{help_of} --help shows what there is.")
    output.error(failure)
    output.result(summarize(command, Report(""), 0.0, error=failure))
    return ExitCode.USAGE


def _asked_form(arguments: list[str]) -> OutputFormat:
    """Find out how to answer, from words that could not be understood as a whole."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        value = following if word == "--output" else word.removeprefix("--output=") if "=" in word else ""
        if value in list(OutputFormat):
            return OutputFormat(value)
    return OutputFormat.TEXT


def _quieten(*, verbose: bool) -> None:
    """Keep libraries' own words off the screen, unless they are asked for."""
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        return
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is first imported, which is later
    logging.getLogger().addHandler(logging.NullHandler())


if __name__ == "__main__":
    main()
