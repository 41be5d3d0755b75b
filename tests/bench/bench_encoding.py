"""Rows per second of the row encoder, on one core: ``python tests/bench/bench_encoding.py [rows]``.

The best of a few rounds, since the machine is shared; each profile is 11 columns like those of the sample table.
"""

from __future__ import annotations

import random
import sys
import time

from etlcli.encoding import RowEncoder
from etlcli.model import Column, Key, KeyAttribute, PgType

BATCH = 1000
ROUNDS = 5
GENRES = ("Drama", "Crime", "Action", "Comedy", "Romance", "Science Fiction", "Film Noir")
COLUMNS = tuple(
    Column(name, PgType(typname, typname, kind="array" if typname == "_text" else "base", element=element))
    for name, typname, element in (
        ("movie_id", "int4", None),
        ("title", "text", None),
        ("year", "int4", None),
        ("rating", "numeric", None),
        ("genres", "_text", PgType("text", "text")),
        ("country", "text", None),
        ("runtime", "int2", None),
        ("tagline", "text", None),
        ("updated_at", "timestamptz", None),
        ("colour", "bool", None),
        ("extra", "jsonb", None),
    )
)


def make_rows(count: int, *, nulls: float, escapes: float) -> list[bytes]:
    """Make COPY lines; of the texts a share needs escapes, of most columns a share is NULL."""
    chance = random.Random(7)

    def text(length: int) -> str:
        words = "".join(chance.choices("abcdefghijklm nopqrstuvwxyz", k=length))
        return words.replace("q", '"').replace("z", "\\n") if chance.random() < escapes else words

    lines = []
    for number in range(count):
        genres = ",".join(
            f'"{genre}"' if " " in genre else genre for genre in chance.sample(GENRES, chance.randint(1, 3))
        )
        fields = [
            str(number),
            text(20),
            str(chance.randint(1900, 2026)),
            f"{chance.randint(10, 99) / 10}",
            "{" + genres + "}",
            chance.choice(("France", "Japan", "Côte d'Ivoire")),
            str(chance.randint(60, 240)),
            text(64),
            f"2026-08-{chance.randint(10, 28)} 10:{chance.randint(10, 59)}:02.{chance.randint(100000, 999999)}+00",
            chance.choice("tf"),
            f'{{"imdb": "tt{number:07}", "tags": ["a", "b"], "votes": {chance.randint(1, 10**6)}, "a": {{"b": 2.5}}}}',
        ]
        lines.append("\t".join(fields[:2] + [r"\N" if chance.random() < nulls else f for f in fields[2:]]).encode())
    return lines


def main() -> None:
    """Print one line per profile."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for name, nulls, escapes in (
        ("plain", 0.0, 0.0),
        ("5% NULL, 5% escapes", 0.05, 0.05),
        ("30% NULL, all escapes", 0.3, 1),
    ):
        lines = make_rows(count, nulls=nulls, escapes=escapes)
        encoder = RowEncoder(COLUMNS, [column.name for column in COLUMNS], Key(KeyAttribute("movie_id", "N")))
        best = 0.0
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for start in range(0, count, BATCH):
                encoder.encode(lines[start : start + BATCH])
            best = max(best, count / (time.perf_counter() - started))
        print(f"{name:24}{best:12,.0f} rows/s")  # noqa: T201  a benchmark's output


if __name__ == "__main__":
    main()
