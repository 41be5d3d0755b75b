"""What ``sam build`` and ``sam deploy`` take: template, state machine, the functions' code with its config.

The code is this very package as it is installed here, without what only the command line needs. What it needs in turn
is asked for in the versions that are installed here, so that what runs in AWS is what ran here.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from etlcli.config.document import FILE_NAME
from etlcli.errors import TerminalError, UsageError

__all__ = ["Deployment", "deploy", "requirements"]

_DISTRIBUTION = "momento-etl"
_PACKAGE = Path(__file__).parents[1]
_DEPLOYED = ("template.yaml", "state_machine.asl.json")
_SAM_CONFIG = "samconfig.toml"

# What only the command line needs: by its path in the package, and by the name of a distribution.
_LEFT_OUT = {
    *("cli", "local", "__main__.py", "aws/deploying.py", "aws/parameters.py", "aws/shippable.py"),
    *(f"aws/{name}" for name in _DEPLOYED),
}
_NOT_REQUIRED = {"typer", "rich"}

# What the template takes. sam builds with the very Python that the functions get, so this one is the likeliest to do.
_RUNTIMES = ("python3.11", "python3.12", "python3.13", "python3.14")

# Its Amazon Linux 2 has glibc 2.26, and psycopg's wheels for arm64 want 2.27.
_NOT_ON_ARM = "python3.11"

_EXAMPLE = """\
# The functions' config. It is a part of their code, so what is secret stands elsewhere and is referred to: in Parameter
# Store ("ssm:/NAME", a SecureString) or in Secrets Manager ("secretsmanager:NAME#FIELD"). The region is the stack's.
# config.example.toml has every key with a word on each.

#[source]
#url = "ssm:/momento-etl/url"

#[cache]
#api_key = "ssm:/momento-etl/api_key"
#endpoint = "cell-4-us-west-2-1.prod.a.momentohq.com"

#[tables.movies]
#source = "public.movies"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What goes into the folder besides the package.

    Attributes:
        config: The config's text; None for an example that is all comments.
        modules: Files and folders of Python that the config's transforms are in.
        stack: What the stack is called.
        region: Where it goes; None where that is asked for later.
        parameters: The template's, by name.
    """

    config: str | None = None
    modules: Sequence[Path] = ()
    stack: str = _DISTRIBUTION
    region: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def deploy(folder: Path, deployment: Deployment, *, force: bool = False) -> list[str]:
    """Write the folder.

    What people are to change in it, ``samconfig.toml`` and a config that none was given for, is left as it is.

    Args:
        folder: Where to; made where it is missing.
        deployment: What to write besides the package.
        force: Whether it may have files in it, which are written over.

    Returns:
        The names of what was left as it is.

    Raises:
        UsageError: It has files in it, is no folder, or what the code needs is not known.
        TerminalError: It cannot be written.
    """
    required = requirements()
    try:
        _check_folder(folder, force=force)
        return _write(folder, deployment, required)
    except OSError as error:
        # shutil.Error is an OSError that has no reason of its own.
        reason = error.strerror or "a file could not be copied"
        raise TerminalError(
            f"{folder} cannot be written: {reason}", hint="Free some space, or choose another folder with --out."
        ) from error


def requirements() -> list[str]:
    """List what the functions' code needs, in the versions that are installed here.

    Raises:
        UsageError: It is not known: this package is not installed, but lies there.
    """
    try:
        required = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"{_DISTRIBUTION} is not installed as a package, so that what its functions need is not known",
            hint="Install it with pip, and run the same command.",
        ) from None
    lines = []
    for text in required:
        wanted, semicolon, marker = text.partition(";")
        # A name, extras in brackets, and bounds (PEP 508): psycopg[binary]<4,>=3.3.9
        with_extras = re.split(r"[<>=!~ ]", wanted.strip())[0]
        name = with_extras.partition("[")[0]
        if "extra" not in marker and name.lower() not in _NOT_REQUIRED:
            version = _installed(name)
            lines.append((wanted.strip() if version is None else f"{with_extras}=={version}") + semicolon + marker)
    return sorted(lines)


def _installed(name: str) -> str | None:
    """The version that is installed, unless it is a local one (PEP 440), which no index has."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return None if "+" in version else version


def _check_folder(folder: Path, *, force: bool) -> None:
    if folder.resolve().is_relative_to(_PACKAGE.resolve()):
        raise UsageError(f"{folder} is in the package that is to be copied", hint="Choose another folder with --out.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="Choose another one with --out.")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty", hint="Choose another folder with --out, or write over what is there: --force."
        )


def _write(folder: Path, deployment: Deployment, required: Sequence[str]) -> list[str]:
    function = folder / "function"
    function.mkdir(parents=True, exist_ok=True)
    for name in _DEPLOYED:
        shutil.copyfile(_PACKAGE / "aws" / name, folder / name)
    _copy_package(function / _PACKAGE.name)
    for module in deployment.modules:
        _copy_module(module, function / module.name)
    (function / "requirements.txt").write_text("".join(f"{line}\n" for line in required), encoding="utf-8")
    kept = []
    config, sam_config = function / FILE_NAME, folder / _SAM_CONFIG
    if deployment.config is None and config.exists():
        kept.append(f"function/{FILE_NAME}")
    else:
        config.write_text(_EXAMPLE if deployment.config is None else deployment.config, encoding="utf-8")
    if sam_config.exists():
        kept.append(_SAM_CONFIG)
    else:
        sam_config.write_text(_sam_config(deployment), encoding="utf-8")
    return kept


def _copy_package(target: Path) -> None:
    # Anew: a module that is no more must not be there either.
    if target.exists():
        shutil.rmtree(target)

    def left_out(folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(_PACKAGE)
        return {name for name in names if name == "__pycache__" or (place / name).as_posix() in _LEFT_OUT}

    # Without the files' own times and rights: whoever installed the package may have closed them to others.
    shutil.copytree(_PACKAGE, target, ignore=left_out, copy_function=shutil.copyfile)


def _copy_module(module: Path, target: Path) -> None:
    if module.is_dir():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(module, target, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        shutil.copyfile(module, target)


def _sam_config(deployment: Deployment) -> str:
    building = _building(f"python3.{sys.version_info.minor}")
    region = [] if deployment.region is None else [f"region = {json.dumps(deployment.region)}"]
    return "\n".join(
        [
            "# What sam build and sam deploy are called with. Parameters are the template's; Architecture and Runtime",
            "# have to be the same in both.",
            "version = 0.1",
            "",
            "[default.global.parameters]",
            f"stack_name = {json.dumps(deployment.stack)}",
            *region,
            "",
            "[default.build.parameters]",
            f"parameter_overrides = {_overrides(building)}",
            "",
            "[default.deploy.parameters]",
            'capabilities = "CAPABILITY_IAM"',
            "confirm_changeset = true",
            "resolve_s3 = true",
            f"parameter_overrides = {_overrides({**building, **deployment.parameters})}",
            "",
        ]
    )


def _building(this_python: str) -> dict[str, str]:
    runtime = this_python if this_python in _RUNTIMES else _RUNTIMES[-1]
    return {"Architecture": "x86_64" if runtime == _NOT_ON_ARM else "arm64", "Runtime": runtime}


def _overrides(parameters: Mapping[str, str]) -> str:
    # What is no ASCII stands as it is: a surrogate pair, as JSON has it, is none of TOML's.
    return json.dumps(" ".join(f'{name}="{value}"' for name, value in parameters.items()), ensure_ascii=False)
