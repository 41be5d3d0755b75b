"""``deploy``: the functions, the state machine and their template, ready for ``sam build`` and ``sam deploy``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from etlcli.aws.deploying import Deployment, deploy
from etlcli.aws.parameters import template_parameters
from etlcli.aws.shippable import check_shippable
from etlcli.cli import options
from etlcli.cli.execute import answer
from etlcli.cli.output import Output, OutputFormat
from etlcli.config import Settings, load_settings
from etlcli.config.document import FILE_NAME, find_file
from etlcli.config.references import Reference, Surroundings
from etlcli.config.schema import RDS_IAM
from etlcli.errors import ConfigError
from etlcli.report import Report

__all__ = ["deploy_command"]


def deploy_command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write; made where it is missing.")],
    table: options.Table = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over what is in DIR; samconfig.toml stays as it is.")
    ] = False,
    config: options.Config = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write what runs a job in AWS: Lambda functions, a state machine and a SAM template, ready to be built.

    Nothing is sent to AWS: `sam build` and `sam deploy` do that, with the AWS SAM
    CLI. The config goes along, as a part of the functions' code, and has to refer
    to what is secret: "ssm:/NAME" or "secretsmanager:NAME#FIELD".

    Example:
      momento-etl deploy --out aws --table movies
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)

    def work(report: Report) -> dict[str, Any]:
        found = _read(config)
        job = table or _only_job(found.settings)
        parameters = {} if job is None else template_parameters(found.settings, job)
        report.job = parameters.get("Table", "")
        report.destination = parameters.get("DestinationTable")
        modules, warnings = _modules_of(found.settings)
        source = found.settings.source
        if source is not None and source.password == RDS_IAM:
            warnings.append(
                f"the source's password is {RDS_IAM}: give the parameter RdsUser, in samconfig.toml, the instance's"
                " resource id and the user, as in db-ABCDEFGHIJKL/etl"
            )
        deployment = Deployment(
            config=found.text,
            modules=modules,
            stack=_stack_name(report.job),
            region=found.settings.destination.region,
            parameters=parameters,
        )
        kept = deploy(out, deployment, force=force)
        if found.path is None and f"function/{FILE_NAME}" not in kept:
            warnings.append(f"no config was found: fill in {out / 'function' / FILE_NAME} before sam build")
        for warning in warnings:
            speaker.warn(warning)
        for name in kept:
            speaker.note(f"left as it is: {out / name}")
        report.warnings += warnings
        steps = [f"cd {options.quoted(str(out))}", "sam build", "sam deploy --guided"]
        speaker.data("\n".join([f"{out} is written. To build it and to deploy it:", *(f"  {step}" for step in steps)]))
        return {
            "out": str(out),
            "config": None if found.path is None else str(found.path),
            "kept": kept,
            "stack": deployment.stack,
            "parameters": dict(parameters),
            "next": steps,
        }

    answer("deploy", speaker, work, job=table or "")


@dataclass(frozen=True)
class _Found:
    """A config that can go into the functions' code; no path and no text where there is none."""

    path: Path | None
    text: str | None
    settings: Settings


def _read(config: str | None) -> _Found:
    """Find the config as every command does; but read the file alone, since the functions get nothing else.

    Raises:
        ConfigError: It is wrong, or cannot go into the functions' code.
    """
    present = {name: value for name, value in os.environ.items() if value.strip()}
    path = find_file(config, present, Path.cwd())
    if path is None:
        return _Found(None, None, load_settings(environ={}, folder=Path.cwd() / "nowhere"))
    text = check_shippable(path)
    return _Found(path, text, load_settings(str(path), environ={}, resolver=_elsewhere))


def _elsewhere(reference: Reference, _surroundings: Surroundings) -> str:
    raise ConfigError(
        f"{reference} is looked up by the functions only", hint="Write the value itself: it is no secret."
    )


def _only_job(settings: Settings) -> str | None:
    return next(iter(settings.tables)) if len(settings.tables) == 1 else None


def _stack_name(job: str) -> str:
    # CloudFormation takes letters, digits and hyphens, 128 of them.
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"momento-etl-{job}").strip("-")
    return name[:128].rstrip("-")


def _modules_of(settings: Settings) -> tuple[list[Path], list[str]]:
    """Find the modules of transforms in the current folder, and warn of those that are not there."""
    modules, warnings = [], []
    references = {table.transform for table in settings.tables.values() if table.transform is not None}
    for reference in sorted(references):
        name = reference.partition(":")[0].partition(".")[0]
        module = next((path for path in (Path(f"{name}.py"), Path(name)) if path.exists()), None)
        if module is None:
            warnings.append(
                f"transform {reference}: there is no {name}.py here; put it into the folder `function`,"
                " or its package into function/requirements.txt"
            )
        else:
            modules.append(module)
    return modules, warnings
