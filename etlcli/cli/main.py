"""The console script: what happens before and after each command."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from etlcli import __version__
from etlcli.cli.commands import Commands
from etlcli.cli.help import ClickError, asks_for_help, usage_error
from etlcli.errors import EtlError, ExitCode, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from etlcli.cli.output import OutputFormat

__all__ = ["app", "main"]

# Rows and items are many objects for a moment, and no cycles. Looked at as often as Python does by default, they took
# the collector more than half of the CPU of `verify`.
_OBJECTS_BETWEEN_COLLECTIONS = 10_000

# What glibc's malloc does by itself keeps freed memory: each thread has a heap of its own, up to eight for each
# processor, and what was freed in one is of no use to the others; and a chunk's megabytes, once one of that size was
# freed, come out of a heap, which they leave full of holes. Named in malloc.h: M_ARENA_MAX and M_MMAP_THRESHOLD.
_MALLOC = {-8: 2, -3: 1024 * 1024}

app = typer.Typer(
    name="momento-etl",
    cls=Commands,
    help="Moves table rows from PostgreSQL through a named Momento cache into DynamoDB.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"momento-etl {__version__}\n")
        raise typer.Exit


@app.callback()
def _before(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _quieten(verbose="--verbose" in sys.argv or "-v" in sys.argv)
    _keep_little()


def main() -> None:
    """Run the command line, and exit with one of the codes of ``etlcli.errors.ExitCode``."""
    arguments = sys.argv[1:]
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    _speak_anywhere()
    try:
        _refuse_undecodable(arguments)
        code = app(args=arguments, prog_name="momento-etl", standalone_mode=False)
        sys.stdout.flush()  # while a reader that has gone can still be told from an error
    except ClickError as error:
        code = ExitCode.USAGE if asks_for_help(error) else _refuse(*usage_error(error), arguments)
    except UsageError as error:
        code = _refuse(error, "", arguments)
    except (typer.Abort, KeyboardInterrupt):
        code = ExitCode.SIGINT
    except BrokenPipeError:
        code = ExitCode.FAILED
    except OSError as error:
        code = _answer_lost(error)
    _forget_what_cannot_be_written()
    gc.freeze()  # the interpreter looks for cycles at its end, among all that was imported; the process ends anyway
    sys.exit(int(code or 0))


def _answer_lost(error: OSError) -> ExitCode:
    """Tell that stdout took not all of it: whoever reads it must not take what there is for the whole."""
    from etlcli.cli.output import Output

    Output().error(
        EtlError(
            f"stdout cannot be written to: {error.strerror or error}",
            hint="What the command does is done, and its answer is lost. Free some space, or send it elsewhere;"
            " momento-etl history tells what runs came to.",
        )
    )
    return ExitCode.FAILED


def _refuse(error: UsageError, command: str, arguments: list[str]) -> ExitCode:
    """Tell a mistyped command line, as JSON too where that was asked for."""
    from etlcli.cli.output import Output
    from etlcli.report import Report
    from etlcli.summary import summarize

    output = Output(_asked_form(arguments))
    output.error(error)
    output.result(summarize(command, Report(""), 0.0, error=error))
    return ExitCode.USAGE


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuse what is no text under this locale before any of it ends up in a query, a name or a message.

    Raises:
        UsageError: An argument is not.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"the argument {argument!a} is not UTF-8", hint="Write it in UTF-8, in a UTF-8 locale."
            ) from None


def _asked_form(arguments: list[str]) -> OutputFormat:
    """Find out how to answer, from words that could not be understood as a whole."""
    from etlcli.cli.output import OutputFormat

    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        value = following if word == "--output" else word.removeprefix("--output=") if "=" in word else ""
        if value in list(OutputFormat):
            return OutputFormat(value)
    return OutputFormat.TEXT


class _Unfailing(io.FileIO):
    """A file for words in passing: where it takes none any more, its disk being full, they are lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _speak_anywhere() -> None:
    """Let no character that the terminal's encoding lacks end a command, no output be cut, and no log's end be a run's.

    Under PYTHONUNBUFFERED, which container images like to set, Python writes text with one system call and does not
    look at how much of it was taken: what a full pipe had no room for when the call was interrupted is lost, and
    nobody is told. A buffered stream writes the rest.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if isinstance(stream.buffer, io.RawIOBase):
            buffered = open(stream.fileno(), "w", buffering=1, encoding=stream.encoding, closefd=False)  # noqa: SIM115
            setattr(sys, name, buffered)
            stream = buffered
        stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = _Unfailing(sys.stderr.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(raw), sys.stderr.encoding, errors="backslashreplace", line_buffering=True
        )


def _forget_what_cannot_be_written() -> None:
    """Throw away what nobody takes any more, so that the interpreter does not complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _quieten(*, verbose: bool) -> None:
    """Keep libraries' own words off the screen, unless they are asked for."""
    if verbose:
        from etlcli.cli.library_logs import show_library_logs

        show_library_logs()
        return
    import logging

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is first imported, which is later
    logging.getLogger().addHandler(logging.NullHandler())


def _keep_little() -> None:
    """Have freed memory given back or used again, where the C library can be told and the user has not told it."""
    import ctypes

    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


if __name__ == "__main__":
    main()
