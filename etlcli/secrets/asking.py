"""Asks Parameter Store and Secrets Manager for one value, and words what they answer.

The codes are those of the API references (SSM ``GetParameter``, Secrets Manager ``GetSecretValue``, "Common errors").
"""

from __future__ import annotations

from typing import Any, NamedTuple

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError, SSLError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from etlcli.config.references import Reference, Surroundings
from etlcli.errors import ConfigError, EtlError, Unavailable
from etlcli.hidden import hide, hide_within
from etlcli.secrets.session import NO_CREDENTIALS, new_session, region_of, short, translating

__all__ = ["ask"]

_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 5
# botocore tries again, after 1, 2 and 4 s at most, where it is throttled (Parameter Store lets 40 requests a second
# through, and a fleet may start at once) or not answered: half a minute in all.
_ATTEMPTS = 4


class _Service(NamedTuple):
    """What differs between the two.

    Attributes:
        title: What its thing is called.
        action: The right to read one.
        create: How one is made.
    """

    title: str
    action: str
    create: str


_SERVICES = {
    "ssm": _Service(
        "SSM parameter", "ssm:GetParameter", "aws ssm put-parameter --type SecureString --name NAME --value VALUE"
    ),
    "secretsmanager": _Service(
        "secret in Secrets Manager",
        "secretsmanager:GetSecretValue",
        "aws secretsmanager create-secret --name NAME --secret-string VALUE",
    ),
}

_MISSING = {"ParameterNotFound", "ResourceNotFoundException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized"}
_UNDECRYPTED = {"DecryptionFailure", "InvalidKeyId", "KMSAccessDeniedException"}
_UNKNOWN_SIGNER = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_PASSING = {
    "InternalFailure",
    "InternalServerError",
    "InternalServiceError",
    "RequestTimeout",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}


def ask(reference: Reference, surroundings: Surroundings) -> str:
    """Ask for a parameter's value or a secret's text, whole; blocks. All that is secret is hidden from all output.

    Raises:
        ConfigError: It does not exist, may not be read, is no text or empty; or AWS cannot be asked.
        Unavailable: AWS does not answer just now.
    """
    with translating(str(reference)):
        session = new_session(surroundings)
        region = region_of(session, reference.region, surroundings.region)
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_ANSWER_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    try:
        client = session.create_client(reference.store, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"{reference}: AWS cannot be asked as it is set up ({short(error)})",
            hint="Check the region, and AWS_ENDPOINT_URL and its like.",
            of_service=True,
        ) from error
    where = f"{region} ({client.meta.endpoint_url})" if "amazonaws.com" not in client.meta.endpoint_url else region
    try:
        text, is_secret = _parameter(client, reference) if reference.store == "ssm" else _secret(client, reference)
    except ClientError as error:
        raise _refusal(error, reference, where) from error
    except ParamValidationError as error:
        raise ConfigError(
            f"{reference}: no {_SERVICES[reference.store].title} can have this name ({short(error)})",
            hint="Check the name.",
        ) from error
    except SSLError as error:
        raise ConfigError(
            f"{reference}: the TLS certificate of {client.meta.endpoint_url} is not trusted ({short(error)})",
            hint="Behind a proxy that opens TLS, name its certificate authority: AWS_CA_BUNDLE=/path/to/ca.pem",
            of_service=True,
        ) from error
    except (BotoConnectionError, HTTPClientError, ResponseParserError) as error:
        raise Unavailable(
            f"{reference}: no good answer from {client.meta.endpoint_url} ({short(error)})",
            hint="Check that AWS can be reached from here: network, proxy (HTTPS_PROXY), and from within a VPC an"
            f" endpoint for {reference.store}, or a way out of it.",
            of_service=True,
        ) from error
    except BotoCoreError as error:
        raise ConfigError(f"{reference}: {short(error)}", hint=NO_CREDENTIALS, of_service=True) from error
    finally:
        client.close()
    if is_secret:
        hide(text)
        hide_within(text)
    if not text.strip():
        raise ConfigError(f"{reference} is empty", hint="Give it a value.")
    return text


def _parameter(client: Any, reference: Reference) -> tuple[str, bool]:
    """A parameter's value, and whether it is kept as a secret.

    Raises:
        Unavailable: Somebody else has answered.
    """
    # A version or a label behind the name is SSM's own way to write it.
    parameter = client.get_parameter(Name=reference.name, WithDecryption=True).get("Parameter", {})
    if "Value" not in parameter:
        raise _foreign(client, reference)
    return parameter["Value"], parameter.get("Type") == "SecureString"


def _secret(client: Any, reference: Reference) -> tuple[str, bool]:
    """A secret's text.

    Raises:
        ConfigError: It is binary.
        Unavailable: Somebody else has answered.
    """
    answer = client.get_secret_value(SecretId=reference.name)
    if "SecretBinary" in answer:
        raise ConfigError(
            f"{reference} is a binary secret, and has no text", hint="Store it as text (--secret-string)."
        )
    if "SecretString" not in answer:
        raise _foreign(client, reference)
    return answer["SecretString"], True


def _foreign(client: Any, reference: Reference) -> Unavailable:
    """A page of a proxy's, say, of which botocore makes an empty answer."""
    return Unavailable(
        f"{reference}: what answers at {client.meta.endpoint_url} is not AWS",
        hint="Check the endpoint and, if one is set, HTTPS_PROXY.",
        of_service=True,
    )


def _refusal(error: ClientError, reference: Reference, where: str) -> EtlError:
    """Word an error answer."""
    service = _SERVICES[reference.store]
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = short(error.response.get("Error", {}).get("Message", ""))
    if code in _MISSING:
        return ConfigError(
            f"{reference}: there is no such {service.title} in {where}",
            hint="Check name, region (`region` below [destination], AWS_REGION; an ARN brings its own) and account, or"
            f" make it: {service.create}",
        )
    if code == "ParameterVersionNotFound":
        return ConfigError(
            f"{reference}: the SSM parameter has no such version or label in {where}",
            hint="aws ssm get-parameter-history --name NAME lists them.",
        )
    if code in _UNDECRYPTED or (code in _DENIED and "kms" in said.lower()):
        return ConfigError(
            f"{reference}: it may not be decrypted ({code}: {said})",
            hint=f"Allow the AWS identity in use kms:Decrypt on the key that encrypts it, besides {service.action}.",
        )
    if code in _DENIED:
        return ConfigError(
            f"{reference}: the AWS identity in use may not read it ({code}: {said})",
            hint=f"Allow it {service.action} on this {service.title}, and kms:Decrypt on its key where that is one of"
            " your own.",
        )
    if code in _UNKNOWN_SIGNER:
        # Their words are left out: of a wrong signature they quote the request's headers, session token included.
        return ConfigError(
            f"{reference}: AWS does not accept the credentials in use ({code}, in {where})",
            hint="Check the access key, its secret and the session token, whether they have expired, and this machine's"
            " clock.",
            of_service=True,
        )
    if code in _PASSING or status >= 500 or status == 429:
        return Unavailable(
            f"{reference}: AWS gives no good answer just now in {where} ({code}: {said})",
            hint="Run the same command again in a moment.",
            of_service=True,
        )
    return ConfigError(f"{reference}: AWS refuses it in {where} ({code}: {said})", hint="Check the name.")
