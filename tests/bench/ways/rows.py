"""Rows as Python objects that boto3 takes: what everybody does who writes with boto3."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

__all__ = ["read_items"]


def read_items(postgres_url: str, table: str) -> list[dict[str, Any]]:
    """Read a table's rows. boto3 wants numbers that are no floats, and texts for times."""
    set_json_loads(partial(json.loads, parse_float=Decimal))
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        rows = connection.execute(sql.SQL("select * from {} order by 1").format(sql.Identifier(table))).fetchall()
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows
    ]
