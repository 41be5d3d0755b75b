"""What a config says of a job, in the parameters of the template."""

from __future__ import annotations

import re

from etlcli.aws.shippable import written_values
from etlcli.config import Settings, resolve_job
from etlcli.config.document import read_file
from etlcli.config.references import is_remote, parse
from etlcli.errors import UsageError

__all__ = ["template_parameters"]

# By the option that refers to a secret: how the parameters begin that give the right to read it.
_SECRETS = {
    "source.url": "Source",
    "source.password": "Password",
    "cache.api_key": "Cache",
    "tables.mask_key": "Mask",
}

# The template's pattern for it: the schedule's input is JSON with the name in it.
_NAME = re.compile(r'[^"\\\x00-\x1f]+')

_KINDS = {"ssm": "Parameter", "secretsmanager": "Secret"}


def template_parameters(settings: Settings, table: str) -> dict[str, str]:
    """Fill in the parameters that the config decides on.

    Args:
        settings: The configuration, of the file alone.
        table: A job of the config; or, where none is called so, a table.

    Raises:
        UsageError: No job can be made of it, or its name is none for the input of an execution.
        ConfigError: A value of the job's is a reference, and no secret.
    """
    job = resolve_job(settings, table)
    called = job.name if job.name in settings.tables else table
    if not _NAME.fullmatch(called):
        raise UsageError(
            f"{called} cannot be named in the input of an execution",
            hint="Give it a [tables.NAME] section with another name, and `source` below it; then --table NAME.",
        )
    parameters = {
        "Table": called,
        "DestinationTable": job.destination,
        "StateTable": settings.state.table,
        "Replace": str(job.mode == "replace").lower(),
    }
    if settings.config_path is None:
        return parameters
    for written in written_values(read_file(settings.config_path)):
        use = _SECRETS.get(written.option.path)
        of_another_job = written.path[0] == "tables" and written.path[1] != job.name
        if use and is_remote(written.text) and not of_another_job:
            reference = parse(written.text)
            name = reference.name
            if reference.store == "ssm":
                # Without its version; and with one slash before it, as ARNs have it, whether the name has one or not.
                name = "/" + name.partition(":")[0].removeprefix("/")
            parameters[use + _KINDS[reference.store]] = name
    return parameters
