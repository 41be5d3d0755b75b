"""Names as people type them."""

from __future__ import annotations

import pytest

from etlcli.errors import UsageError
from etlcli.source.names import candidates


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("movies", [("movies",)]),
        ("  movies\t", [("movies",)]),
        ("Movies", [("Movies",), ("movies",)]),
        ("order", [("order",)]),
        ("Order Details", [("Order Details",), ("order details",)]),
        ("sales.orders", [("sales", "orders"), ("sales.orders",)]),
        ("Sales.Orders", [("Sales", "Orders"), ("Sales.Orders",), ("sales", "orders"), ("sales.orders",)]),
        ("a.b.c", [("a", "b.c"), ("a.b.c",)]),
        (".hidden", [(".hidden",)]),
        ("trailing.", [("trailing.",)]),
        ("größe", [("größe",)]),
        ("it's", [("it's",)]),
        ("映画", [("映画",)]),
        ("x" * 63, [("x" * 63,)]),
        ('"Order Details"', [("Order Details",)]),
        ('sales."Order Details"', [("sales", "Order Details")]),
        ('SALES."Order Details"', [("sales", "Order Details")]),
        ('"Sales".Orders', [("Sales", "orders")]),
        ('"Sales"."Orders"', [("Sales", "Orders")]),
        ('"a.b"', [("a.b",)]),
        ('"a.b"."c.d"', [("a.b", "c.d")]),
        ('"say ""hi"""', [('say "hi"',)]),
        ('""""', [('"',)]),
        ('"""a"".""b"""', [('"a"."b"',)]),
        ('Sales . "Orders"', [("sales", "Orders")]),
        ('"Sales" . Orders', [("Sales", "orders")]),
        ('"select"', [("select",)]),
    ],
)
def test_a_name_means(typed: str, meant: list[tuple[str, ...]]) -> None:
    assert candidates(typed) == meant


@pytest.mark.parametrize("typed", ["", " ", "\t\n"])
def test_an_empty_name_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="empty") as caught:
        candidates(typed)
    assert caught.value.hint is not None
    assert "--table" in caught.value.hint


@pytest.mark.parametrize(
    "typed",
    ['"', '"open', 'open"', 'a"b', '"a"b', '"a".', '."a"', '"a".."b"', '"a"."b"."c"', '""', '"".x', 'a.b."c"', '"a""'],
)
def test_quotes_that_do_not_fit_are_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="not well formed") as caught:
        candidates(typed)
    assert typed in caught.value.message
    assert caught.value.hint is not None
