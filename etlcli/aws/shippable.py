"""Whether a config can go into a function's code, where many may read it, and where nothing of this machine is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from etlcli.config.document import Document, read_file
from etlcli.config.outline import header
from etlcli.config.problems import Problem, as_error
from etlcli.config.references import is_reference, is_remote, parse
from etlcli.config.schema import RDS_IAM, SECTIONS, Option
from etlcli.errors import ConfigError
from etlcli.hidden import passwords_within

__all__ = ["Written", "check_shippable", "written_values"]

_BY_REFERENCE = (
    "Keep it in Parameter Store or in Secrets Manager, and refer to it: {name} = "
    '"ssm:/momento-etl/{name}", or "secretsmanager:momento-etl#{name}".'
)

# What Lambda itself sets (its documentation, "Using Lambda environment variables"), as far as a config may ask for it.
_SET_BY_LAMBDA = ("AWS_REGION", "AWS_DEFAULT_REGION")

# What the template has parameters for: a name of Parameter Store, with a version or label, and one of Secrets Manager.
_NAMES = {"ssm": re.compile(r"/?[a-zA-Z0-9_./-]+(?::[a-zA-Z0-9_.-]+)?"), "secretsmanager": re.compile(r"[\w/+=.@-]+")}

_COMMENTED = re.compile(r"""\s*#[\s#]*([a-z_]+)\s*=\s*(["'])(.+?)\2""")


class Written(NamedTuple):
    """A text that a config gives to an option.

    Attributes:
        path: The key with all that it stands in.
        option: What it is given to.
        text: What stands there.
    """

    path: tuple[str, ...]
    option: Option
    text: str

    @property
    def place(self) -> str:
        """How messages name it: `` `url` in [source] ``."""
        return f"`{self.option.name}` in {header(SECTIONS[self.option.section], self.path[-2])}"


def check_shippable(path: Path) -> str:
    """Read a config, and see to it that it can go into a function's code.

    Returns:
        Its text.

    Raises:
        ConfigError: It cannot be read; or it has a secret in it, comments included; or it asks for what a function does
            not have: variables of the environment, profiles. All of these are in one message, and none is shown.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file that could be copied", hint="Put the config into a file of its own.")
    document = read_file(path)
    problems = [problem for written in written_values(document) if (problem := _problem(document, written))]
    text = path.read_text(encoding="utf-8-sig")
    seen = {problem.line for problem in problems}
    problems += [problem for problem in _in_lines(path, text) if problem.line not in seen]
    if problems:
        raise as_error(problems)
    return text


def written_values(document: Document) -> Iterator[Written]:
    """List all texts that a config gives to options; what it has besides is another one's to refuse."""
    for name, section in SECTIONS.items():
        content = document.tables.get(name)
        if not isinstance(content, dict):
            continue
        tables = {(name, key): keys for key, keys in content.items()} if section.named else {(name,): content}
        for path, keys in tables.items():
            for key, value in keys.items() if isinstance(keys, dict) else ():
                if isinstance(value, str) and key in section.options:
                    yield Written((*path, key), section.options[key], value.strip())


def _problem(document: Document, written: Written) -> Problem | None:
    option, text = written.option, written.text
    hint = _BY_REFERENCE.format(name=option.name)
    if text.startswith("env:") and text.removeprefix("env:") not in _SET_BY_LAMBDA:
        message = f"{written.place} is {text}, which is not set for the functions"
        return document.problem(written.path, message, hint if option.secret else "Write the value itself.")
    if is_remote(text):
        return _unreachable(document, written)
    if is_reference(text):
        return None
    if option.path == "destination.profile":
        message = f"{written.place}: the functions have roles, and no profiles"
        return document.problem(written.path, message, "Leave it out.")
    if _is_secret(option, text):
        message = f"{written.place} is a secret, and would be in the functions' code"
        return document.problem(written.path, message, hint)
    return None


def _unreachable(document: Document, written: Written) -> Problem | None:
    try:
        reference = parse(written.text)
    except ConfigError as error:
        return document.problem(written.path, f"{written.place}: {error.message}", error.hint)
    if _NAMES[reference.store].fullmatch(reference.name):
        return None
    message = f"{written.place} is {written.text}, for which the functions cannot be given the right"
    return document.problem(written.path, message, "Write a name, no ARN: ssm:/NAME, or secretsmanager:NAME#FIELD.")


def _is_secret(option: Option, text: str) -> bool:
    if not option.secret or text in ("", RDS_IAM):
        return False
    # An address is secret for the password that it may have.
    return option.path != "source.url" or _has_password(text)


def _has_password(text: str) -> bool:
    found = (password.strip("\"'") for password in passwords_within(text))
    return any(password != RDS_IAM and not is_reference(password) for password in found)


def _in_lines(path: Path, text: str) -> Iterator[Problem]:
    """Look for secrets where no option is: in comments, which are copied too."""
    secret = {option.name for section in SECTIONS.values() for option in section.options.values() if option.secret}
    for number, line in enumerate(text.splitlines(), 1):
        commented = _COMMENTED.match(line)
        is_key = commented and commented[1] in secret - {"url"} and not is_reference(commented[3])
        if is_key or _has_password(line):
            message = f"{path}, line {number}: a secret, which would be in the functions' code"
            yield Problem(message, "Take it out of the file; comments are copied too.", number)
