"""The rules that rows can break: each is in use, each has a hint, and the hint's way out is one."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import get_args

import pytest

import etlcli
from etlcli.encoding import EncodingOptions, RowEncoder, hint_of
from etlcli.encoding.rules import HINTS, Rule
from etlcli.encoding.specs import FromColumn
from etlcli.model import Column, Key, KeyAttribute, PgType
from tests.unit.test_encoding_values import REFUSED, base

ID = Column("id", base("int4"))
KEY = Key(KeyAttribute("id", "N"))
CASTS = [("cast-number", "N", "12a"), ("cast-boolean", "BOOL", "maybe")]


def test_every_rule_is_in_use_and_has_a_hint() -> None:
    sources = [path.read_text() for path in Path(etlcli.__file__).parent.rglob("*.py") if path.name != "rules.py"]
    texts = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert HINTS.keys() == set(get_args(Rule)) == texts & set(get_args(Rule))
    for hint in HINTS.values():
        assert hint.endswith((".", "}", '"'))
        assert hint.isascii()
    assert len(set(HINTS.values())) > len(HINTS) / 2


def test_a_rule_that_a_newer_version_wrote_has_none() -> None:
    assert hint_of("number-of-the-beast") is None


def cell(text: str) -> bytes:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace("\t", r"\t").encode()


@pytest.mark.parametrize(("pg_type", "text", "rule"), REFUSED)
def test_text_in_its_place_is_a_way_out(pg_type: PgType | str, text: str, rule: str) -> None:
    column = Column("v", base(pg_type) if isinstance(pg_type, str) else pg_type)
    hint = hint_of(rule)
    assert hint is not None
    assert 'on_unrepresentable = "string"' in hint
    assert 'cast = { COLUMN = "S" }' in hint
    as_is, cast = FromColumn("v", "v"), FromColumn("v", "v", cast="S")
    for spec, options in ((as_is, EncodingOptions(on_unrepresentable="string")), (cast, EncodingOptions())):
        encoder = RowEncoder((ID, column), [FromColumn("id", "id"), spec], KEY, options=options)
        items, rejects = encoder.encode([b"1\t" + cell(text)])
        if len(text) > 400_000:  # its text is too large for an item, too
            assert [reject.rule for reject in rejects] == ["item-too-large"]
        else:
            assert [json.loads(item)["v"] for item in items] == [{"S": text}]


@pytest.mark.parametrize(("rule", "kind", "text"), CASTS)
def test_text_is_a_way_out_of_a_cast(rule: str, kind: str, text: str) -> None:
    column = Column("v", base("text"))
    specs = [FromColumn("id", "id"), FromColumn("v", "v", cast=kind)]  # type: ignore[arg-type]
    _, (reject,) = RowEncoder((ID, column), specs, KEY).encode([b"1\t" + cell(text)])
    assert reject.rule == rule
    assert 'on_unrepresentable = "string"' in (hint_of(rule) or "")
    options = EncodingOptions(on_unrepresentable="string")
    items, _ = RowEncoder((ID, column), specs, KEY, options=options).encode([b"1\t" + cell(text)])
    assert [json.loads(item)["v"] for item in items] == [{"S": text}]


def test_a_digest_is_a_way_out_of_a_key_that_is_too_long() -> None:
    column, line = Column("k", base("text")), b"x" * 3000
    key = Key(KeyAttribute("k", "S"))
    _, (reject,) = RowEncoder((column,), [FromColumn("k", "k")], key).encode([line])
    assert reject.rule == "key-too-long"
    assert 'mask = { COLUMN = "hash" }' in (hint_of(reject.rule) or "")
    items, rejects = RowEncoder((column,), [FromColumn("k", "k", mask="hash")], key).encode([line])
    assert (len(items), rejects) == (1, [])
    assert len(json.loads(items[0])["k"]["S"]) == 64
