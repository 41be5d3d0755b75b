"""Binary data: B."""

from __future__ import annotations

from binascii import Error, b2a_base64, unhexlify

from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import ValueEncoder, register, shorten
from etlcli.errors import SourceError
from etlcli.model import AttributeType, PgType

__all__ = ["Binary"]


class Binary(ValueEncoder):
    r"""B in base64, from PostgreSQL's hexadecimal form ``\x0aff``; it may be empty (but not in a key)."""

    head = b'{"B":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "B"

    def content(self, text: bytes) -> bytes:
        """Hexadecimal to base64."""
        try:
            if not text.startswith(rb"\x"):
                raise SourceError(f"{shorten(text)} is not bytea in hexadecimal form", hint="Set bytea_output to hex.")
            return b2a_base64(unhexlify(text[2:]), newline=False)
        except Error as error:
            raise SourceError(f"{shorten(text)} is not bytea in hexadecimal form: {error}") from None


@register("bytea")
def _binary(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Binary()
