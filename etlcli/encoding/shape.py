"""What the items of a job look like, decided once from the columns there are and what the config asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from etlcli.encoding.arrays import Array
from etlcli.encoding.composites import Composite
from etlcli.encoding.fields import determined_columns, field_encoder
from etlcli.encoding.key_hint import propose_key, toml_key
from etlcli.encoding.naming import check_names
from etlcli.encoding.near import near_names
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.specs import (
    CASTS,
    MASKS,
    AttributeSpec,
    CastType,
    Constant,
    FromColumn,
    FromTemplate,
    Mask,
    columns_of,
    origin_of,
)
from etlcli.encoding.templates import Template
from etlcli.encoding.writers import constant_content, encoder_of
from etlcli.errors import ConfigError, UsageError
from etlcli.model import AttributeType, Column, Key, KeyAttribute, PgType

__all__ = ["Shape", "ShapeOptions", "make_shape"]

_MAX_KEY_ATTRIBUTES: Final = 2  # DynamoDB: a hash and a range attribute (Developer Guide, "Core components")
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})

# Types are asked of encoders, which are built without secrets here: any key makes an hmac of the same type.
_ANY_KEY: Final = b"any"

ConstantValue: TypeAlias = str | bool | int | Decimal


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """What a job's section says of its items; the names are those of the config.

    Attributes:
        columns: The columns to take, in this order; None for all. Others can still be used in templates.
        drop: Columns that become no attribute; templates can use them.
        rename: Columns to the attribute names they get.
        cast: Columns to the attribute types they get: ``S``, ``N``, ``B`` or ``BOOL``.
        mask: Columns to what hides them: ``hash``, ``redact`` or ``hmac``.
        has_mask_key: Whether there is a key for ``hmac``.
        attributes: Further attributes: a text with fields in braces is a template, anything else a constant.
        transforms: Whether a function of the user's changes the items, so that nothing is known of their keys.
        reserved: The name of an attribute that is added to every item later; no other may have it.
    """

    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=lambda: _NONE)
    cast: Mapping[str, str] = field(default_factory=lambda: _NONE)
    mask: Mapping[str, str] = field(default_factory=lambda: _NONE)
    has_mask_key: bool = False
    attributes: Mapping[str, ConstantValue] = field(default_factory=lambda: _NONE)
    transforms: bool = False
    reserved: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What items look like, decided.

    Attributes:
        attributes: What each item consists of: the columns in their order, then the added ones. For ``RowEncoder``.
        key: The destination key.
        columns: The columns that are needed, in the source's order.
        key_columns: The columns that the key is made of, each once.
        identifying: Those of the key's columns whose values can be told from the key: two rows that differ in one of
            them never share a key. Where they include a unique key of the source, keys are unique without a look.
        kinds: The DynamoDB type that each attribute mostly has; without those that have any (json).
    """

    attributes: tuple[AttributeSpec, ...]
    key: Key
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    identifying: frozenset[str]
    kinds: Mapping[str, str]

    @property
    def masked(self) -> frozenset[str]:
        """The columns whose values are hidden."""
        return frozenset(
            spec.column for spec in self.attributes if isinstance(spec, FromColumn) and spec.mask is not None
        )


def make_shape(
    columns: Sequence[Column],
    wanted: ShapeOptions,
    key_names: Sequence[str],
    *,
    options: EncodingOptions = DEFAULT_OPTIONS,
    job: str = "NAME",
    key_origin: str = "--key",
    key_of_columns: bool = False,
) -> Shape:
    """Decide what a job's items look like.

    Args:
        columns: All columns that the source has, in order.
        wanted: What the config asks for.
        key_names: The names of the destination key, hash first: of attributes, else of columns, which then mean the
            attribute made of them.
        options: How values become attributes.
        job: The job's name, for the config that hints write out.
        key_origin: Where the key's names come from, for messages: ``--key``, ``the primary key``.
        key_of_columns: Whether they can only be columns' names, as a primary key's are.

    Raises:
        UsageError: The key cannot be; where it has too many columns, the hint is TOML that makes it two.
        ConfigError: A column does not exist or is used twice over, two attributes have one name, a template or a
            constant is none.
    """
    _check_wanted(columns, wanted)
    types = {column.name: column.type for column in columns}
    attributes = tuple(_attributes(columns, wanted, types))
    shape_of = _Items(columns, attributes, types, options, wanted)
    if len(key_names) > _MAX_KEY_ATTRIBUTES:
        raise _too_many(key_names, key_origin, job, wanted, shape_of)
    found = [shape_of.key_attribute(name, key_origin, key_of_columns=key_of_columns) for name in key_names]
    if not found:
        raise UsageError("the destination has no key", hint="Name one or two columns: --key HASH,RANGE")
    if len(found) > 1 and found[0] is found[1]:
        raise UsageError(
            f"{key_origin} names the attribute {found[0].name} twice: {', '.join(key_names)}",
            hint="Hash and range attribute have to be two.",
        )
    check_names(attributes, {spec.name for spec in found})
    if wanted.reserved is not None and (taken := [spec for spec in attributes if spec.name == wanted.reserved]):
        raise ConfigError(
            f"{origin_of(taken[0])} would become the attribute {wanted.reserved}, which is this job's mark",
            hint="Rename it, or give the mark another name: mark = ...",
        )
    key = [KeyAttribute(spec.name, shape_of.key_type(spec)) for spec in found]
    needed = {name for spec in attributes for name in columns_of(spec)}
    return Shape(
        attributes=attributes,
        key=Key(key[0], key[1] if len(key) > 1 else None),
        columns=tuple(column.name for column in columns if column.name in needed),
        key_columns=tuple(dict.fromkeys(name for spec in found for name in columns_of(spec))),
        identifying=frozenset()
        if wanted.transforms
        else frozenset(name for spec in found for name in shape_of.determined(spec)),
        kinds=MappingProxyType({spec.name: kind for spec in attributes if (kind := shape_of.kind(spec))}),
    )


class _Items:
    """The attributes that were decided, and what can be asked of them."""

    def __init__(
        self,
        columns: Sequence[Column],
        attributes: Sequence[AttributeSpec],
        types: Mapping[str, PgType],
        options: EncodingOptions,
        wanted: ShapeOptions,
    ) -> None:
        self._wanted = wanted
        self.columns = {column.name: column for column in columns}
        self.types = types
        self.by_name = {spec.name: spec for spec in attributes}
        self.of_column = {spec.column: spec for spec in attributes if isinstance(spec, FromColumn)}
        self._options = options

    def key_attribute(self, name: str, origin: str, *, key_of_columns: bool) -> AttributeSpec:
        """Find the attribute that a key's name means.

        Raises:
            UsageError: There is none.
        """
        spec = None if key_of_columns else self.by_name.get(name)
        spec = spec or self.of_column.get(name)
        if spec is not None:
            return spec
        if name in self.types:
            raise UsageError(
                f"the key column {name}, named in {origin}, becomes no attribute",
                hint=self._how_to_take(name),
            )
        raise UsageError(
            f"there is no attribute or column {name!r}, named in {origin}",
            hint=near_names(name, dict.fromkeys([*self.by_name, *self.types])),
        )

    def _how_to_take(self, name: str) -> str:
        taken = self._wanted.columns
        if taken is None or name in taken:
            return f"Take {name} out of `drop`, or make the key of another attribute."
        return f"Add it: --columns {','.join([*taken, name])}"

    def key_type(self, spec: AttributeSpec) -> AttributeType:
        """Tell the type of a key attribute.

        Raises:
            UsageError: It cannot be one.
        """
        match spec:
            case FromTemplate():
                return "S"
            case Constant() if spec.type != "BOOL":
                return spec.type
            case FromColumn():
                kind = encoder_of(spec, self.columns[spec.column], self._options, _ANY_KEY).attribute_type
                if kind is not None:
                    return kind
                raise UsageError(
                    f"column {spec.column} is of type {self.types[spec.column].name}, which cannot be a DynamoDB key:"
                    " keys are text, numbers or bytes" + (f" (cast to {spec.cast})" if spec.cast else ""),
                    hint="Choose another column with --key, or cast it to text in the job's section of the config:"
                    f' cast = {{ {toml_key(spec.column)} = "S" }}',
                )
        raise UsageError(
            f"the attribute {spec.name} is a constant of type BOOL, which cannot be a DynamoDB key",
            hint="Make it a text or a number.",
        )

    def determined(self, spec: AttributeSpec) -> frozenset[str]:
        """Name the columns whose values can be told from an attribute's."""
        match spec:
            case FromTemplate():
                return determined_columns(spec.template, self.types)
            case FromColumn(mask="redact") | Constant():
                return frozenset()
            case FromColumn(cast="N"):
                # A text has many spellings of a number: 7 and 07 would be one key.
                own = FromColumn(spec.name, spec.column)
                keeps = self.kind(own) == "N" or self.types[spec.column].typname == "timestamptz"
                return frozenset({spec.column}) if keeps else frozenset()
            case FromColumn():
                return frozenset({spec.column})

    def kind(self, spec: AttributeSpec) -> str | None:
        """Tell the DynamoDB type that an attribute mostly has; None where it may have any."""
        match spec:
            case FromTemplate():
                return "S"
            case Constant():
                return spec.type
        encode = encoder_of(spec, self.columns[spec.column], self._options, _ANY_KEY)
        if encode.head:
            return encode.head.split(b'"')[1].decode()
        return "L" if isinstance(encode, Array) else "M" if isinstance(encode, Composite) else None


def _attributes(
    columns: Sequence[Column], wanted: ShapeOptions, types: Mapping[str, PgType]
) -> Iterable[AttributeSpec]:
    """Make the attributes: columns in their order, then the added ones."""
    taken = [column.name for column in columns] if wanted.columns is None else wanted.columns
    for column in taken:
        if column not in wanted.drop:
            yield FromColumn(
                wanted.rename.get(column, column),
                column,
                cast("CastType | None", wanted.cast.get(column)),
                cast("Mask | None", wanted.mask.get(column)),
            )
    for name, value in wanted.attributes.items():
        yield _added(name, value, types)


def _added(name: str, value: ConstantValue, types: Mapping[str, PgType]) -> AttributeSpec:
    """Make an attribute that is no column: of a template, or constant."""
    constant: Constant
    if isinstance(value, bool):
        constant = Constant(name, "BOOL", "true" if value else "false")
    elif isinstance(value, str):
        try:
            template = Template.parse(value)
            for part in template.fields:
                if part.column not in types:
                    raise ConfigError(
                        f"the template {value!r} names the column {part.column!r}, which does not exist",
                        hint=near_names(part.column, types),
                    )
                field_encoder(part, types[part.column])
        except ConfigError as error:
            raise ConfigError(f"attribute {name}: {error.message}", hint=error.hint) from None
        if template.fields:
            return FromTemplate(name, template)
        constant = Constant(name, "S", "".join(part for part in template.parts if isinstance(part, str)))
    else:
        constant = Constant(name, "N", str(value))
    constant_content(constant)
    return constant


def _check_wanted(columns: Sequence[Column], wanted: ShapeOptions) -> None:
    """Check that what is named exists, once, and is not at odds with the rest."""
    known = [column.name for column in columns]
    twice = next((name for name in known if known.count(name) > 1), None) if len(set(known)) < len(known) else None
    if twice is not None:
        raise UsageError(
            f"the source has two columns of the name {twice}", hint="Give one of them another name in the query: as ..."
        )
    uses: list[tuple[str, Iterable[str]]] = [
        ("columns", wanted.columns or ()),
        ("drop", wanted.drop),
        ("rename", wanted.rename),
        ("cast", wanted.cast),
        ("mask", wanted.mask),
    ]
    for option, names in uses:
        for name in names:
            if name not in known:
                raise ConfigError(f"there is no column {name!r}, named in `{option}`", hint=near_names(name, known))
    for option, names in uses[2:]:
        for name in names:
            if name in wanted.drop:
                raise ConfigError(
                    f"the column {name} stands in `drop` and in `{option}`", hint="Take it out of one of them."
                )
            if wanted.columns is not None and name not in wanted.columns:
                raise ConfigError(
                    f"the column {name} stands in `{option}`, and not among the columns to take",
                    hint=f"Add it: --columns {','.join([*wanted.columns, name])}",
                )
    for name in wanted.cast:
        if name in wanted.mask:
            raise ConfigError(
                f"the column {name} stands in `cast` and in `mask`",
                hint="A masked value is always a text (S). Take it out of one of them.",
            )
    _check_words(wanted.cast, "cast", CASTS)
    _check_words(wanted.mask, "mask", MASKS)
    hmacs = [name for name, mask in wanted.mask.items() if mask == "hmac"]
    if hmacs and not wanted.has_mask_key:
        raise ConfigError(
            f"the column {hmacs[0]} is masked by hmac, and there is no key for it",
            hint='Add mask_key = "env:NAME" to the job\'s section, and put the key into that environment variable.',
        )


def _check_words(given: Mapping[str, str], option: str, words: Sequence[str]) -> None:
    for name, word in given.items():
        if word not in words:
            raise ConfigError(f"`{option}` gives the column {name} {word!r}", hint=f"There are: {', '.join(words)}.")


def _too_many(names: Sequence[str], origin: str, job: str, wanted: ShapeOptions, items: _Items) -> UsageError:
    """Make the error for a key of three and more names, with a config that makes it two."""
    message = f"{origin} has {len(names)} columns ({', '.join(names)}), and a DynamoDB key has at most two attributes"
    for name in names:
        if name not in items.types:
            items.key_attribute(name, origin, key_of_columns=True)  # raises, with the near names
    proposal = propose_key(
        names,
        {name: items.types[name] for name in names},
        job=job,
        usable=partial(_as_key, items),
        added=wanted.attributes,
        taken=items.by_name,
    )
    return UsageError(message, hint=proposal)


def _as_key(items: _Items, column: str) -> str | None:
    """Name the attribute by which a column alone can be one of the key's; None where it cannot be."""
    spec = items.of_column.get(column)
    if spec is None or items.determined(spec) != {column}:
        return None
    try:
        items.key_type(spec)
    except UsageError:
        return None
    return spec.name
