"""All that decides how a job's rows become items, in one piece."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from etlcli.encoding.hook import Transform
from etlcli.encoding.masks import mask_key_id
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.shape import ShapeOptions

__all__ = ["PLAIN", "Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows become items.

    Attributes:
        encoding: How values become attribute values.
        shape: Which attributes there are.
        mask_key: The secret key of ``hmac`` masks.
        transform: The user's own function over finished items.
    """

    encoding: EncodingOptions = DEFAULT_OPTIONS
    shape: ShapeOptions = field(default_factory=ShapeOptions)
    mask_key: bytes | None = field(default=None, repr=False)
    transform: Transform | None = None

    def fingerprint(self) -> dict[str, Any]:
        """What of it decides an item's bytes, besides the attributes that a shape was decided to have; no secret."""
        return {
            "encoding": {**asdict(self.encoding), "as_text": sorted(self.encoding.as_text)},
            "mask_key": mask_key_id(self.mask_key) if self.mask_key is not None else None,
            "transform": [self.transform.reference, self.transform.digest] if self.transform is not None else None,
        }


PLAIN: Final = Recipe()
"""Every column becomes an attribute of its name."""
