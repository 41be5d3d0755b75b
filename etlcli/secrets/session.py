"""botocore's sessions, and what keeps them from being made, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import create_loader
from botocore.session import Session

from etlcli.config.references import Surroundings
from etlcli.errors import ConfigError, Unavailable
from etlcli.hidden import hide, masked
from etlcli.sink.connect import DescriptionReader

__all__ = ["NO_CREDENTIALS", "new_session", "region_of", "short", "translating"]

NO_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or sign in (aws sso login, aws configure)."
)
_MESSAGE_CHARACTERS = 300

# What a provider of credentials fails with, besides botocore's own errors: of a program that is not there or prints
# something else, of a file that cannot be read, of credentials that have expired already.
_PROVIDER_ERRORS = (RuntimeError, ValueError, KeyError, OSError)


def new_session(surroundings: Surroundings) -> Session:
    """Make a session that looks for credentials anew; they are hidden from all output.

    Raises:
        NoCredentialsError: It finds none.
        BotoCoreError: There is no such profile, or what should give credentials does not.
    """
    session = Session(profile=surroundings.profile)
    loader = create_loader(session.get_config_variable("data_path"))
    loader.file_loader = DescriptionReader()
    session.register_component("data_loader", loader)
    credentials = session.get_credentials()
    if credentials is None:
        raise NoCredentialsError
    frozen = credentials.get_frozen_credentials()
    hide(frozen.secret_key, frozen.token)
    return session


def region_of(session: Session, *named: str | None) -> str:
    """Choose the first region that is named, or the session's own.

    Raises:
        NoRegionError: There is none.
    """
    region: Any = next((name for name in named if name), None) or session.get_config_variable("region")
    if not region:
        raise NoRegionError
    return str(region)


@contextmanager
def translating(what: str) -> Iterator[None]:
    """Word what keeps AWS from being asked, as errors that start with ``what`` was asked for.

    Raises:
        ConfigError: There is no region, no profile of that name, no credentials or half of them.
        Unavailable: What should give credentials does not just now.
    """
    try:
        yield
    except NoRegionError as error:
        raise ConfigError(
            f"{what}: no AWS region is set",
            hint='Set region = "..." below [destination], or AWS_REGION, or a region in the AWS profile; or give the'
            " ARN in place of the name.",
            of_service=True,
        ) from error
    except NoCredentialsError as error:
        raise ConfigError(f"{what}: no AWS credentials are found", hint=NO_CREDENTIALS, of_service=True) from error
    except PartialCredentialsError as error:
        raise ConfigError(
            f"{what}: half of the AWS credentials is missing ({short(error)})", hint=NO_CREDENTIALS, of_service=True
        ) from error
    except ProfileNotFound as error:
        raise ConfigError(
            f"{what}: no such AWS profile: {masked(str(error.kwargs['profile']))}",
            hint=f"Known profiles: {', '.join(sorted(Session().available_profiles)) or 'none'}.",
            of_service=True,
        ) from error
    except (BotoCoreError, ClientError, *_PROVIDER_ERRORS) as error:
        raise Unavailable(
            f"{what}: AWS credentials cannot be had just now ({short(error)})",
            hint="See to what gives them (credential_process, sign-in, the metadata service), and run the same command"
            " again.",
            of_service=True,
        ) from error


def short(error: object) -> str:
    """Foreign words in one line, without secrets."""
    line = masked(" ".join(str(error).split())) or type(error).__name__
    return line if len(line) <= _MESSAGE_CHARACTERS else line[:_MESSAGE_CHARACTERS] + "..."
