"""The table that everything here is measured with: films of 11 columns, made with SQL, and the same each time.

Their types are int, text, int, numeric, text[], text, smallint, text of 64, timestamptz, boolean and jsonb. How much
the values repeat decides what a row costs in the cache: 1,000 of these take about 40 KB there, once they are packed.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

__all__ = ["KEY", "make_table"]

KEY = "movie_id"
"""The column of the primary key."""

_WORDS = (
    "able about after again alone amber among angel anger april ashes autumn ballad before behind below bitter black"
    " bright broken burning candle captain carnival castle century city cold colour crimson crossing crown curse dance"
    " danger dark dawn day dead deep desert devil distant dollar door double dragon dream dust early earth east echo"
    " edge eight empire empty endless enemy escape evening eye fair faith fall father fever field fire first flight"
    " flower forest forgotten found free friend frozen garden ghost giant girl glass gold good great green ground"
    " harbour harvest heart heaven hidden high hill hollow home honest horse house hundred hunger ice innocent iron"
    " island journey judge jungle justice killer king kiss knight lady land last laughter law legend letter life light"
    " lion little lonely long lost love lucky machine madness magic man mask master memory midnight mirror money moon"
    " morning mother mountain murder music mystery naked name never new night nine north nothing ocean old one open"
    " orchid other outlaw palace paper paradise passage past perfect phantom piano pirate place planet poison prince"
    " prison promise queen quiet rain rebel red return rich ring rise river road robin rose running sacred sad sailor"
    " saint salt sand savage school sea second secret seven shadow silence silver sister six sky sleep smile snow"
    " soldier song sorrow south spring star station stone storm story stranger street summer sun sweet sword tale"
    " tender thief third thousand thunder tiger time tomorrow tower train treasure tree trial true twelve under valley"
    " velvet village violet voice voyage waiting wall war watch water way west whisper white wild wind winter wolf"
    " woman wonder wooden world yellow yesterday young zero"
)

_WORD = "words[1 + floor(random() * cardinality(words))::int]"
_WORDS_IN_A_LINE = 16
_LINE = " || ' ' || ".join([_WORD] * _WORDS_IN_A_LINE)

# setseed and random() belong to the session, so both are in one.
_STATEMENTS = (
    "select setseed(0.5)",
    """
create table {name} as
select n as movie_id,
       initcap({word}) as title,
       1900 + floor(random() * 127)::int as year,
       ((10 + floor(random() * 90)) / 10)::numeric(3, 1) as rating,
       genres[1 + n % 5 : 1 + n % 5 + floor(random() * 3)::int] as genres,
       countries[1 + floor(random() * cardinality(countries))::int] as country,
       (60 + n % 180)::smallint as runtime,
       taglines[1 + floor(random() * cardinality(taglines))::int] as tagline,
       '2026-08-01'::timestamptz + n * interval '1 minute' as updated_at,
       random() < 0.7 as colour,
       jsonb_build_object('imdb', 'tt' || lpad(n::text, 7, '0'),
                          'votes', n % 9973 * 3,
                          'tags', jsonb_build_array('new', genres[1 + n % 7]),
                          'budget', jsonb_build_object('usd', n % 97)) as extra
  from generate_series(1, {rows}) as n,
       (select words,
               array(select rpad(left({line}, 64), 64, '.') from generate_series(1, 300)) as taglines,
               array['Drama', 'Crime', 'Action', 'Comedy', 'Romance', 'Science Fiction', 'Film Noir'] as genres,
               array['France', 'Japan', 'Germany', 'India', 'Mexico', 'Brazil', 'Egypt', 'Côte d''Ivoire'] as countries
          from string_to_array({words}, ' ') as words) as lists
    """,
    "alter table {name} add primary key (movie_id)",
    "vacuum analyze {name}",
)


def make_table(postgres_url: str, name: str, rows: int) -> None:
    """Make the table with so many rows, unless one of that name is there: it is taken for the same."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("select to_regclass(quote_ident(%s)) is not null", (name,)).fetchone() == (True,):
            return
        for statement in _STATEMENTS:
            connection.execute(
                sql.SQL(statement).format(
                    name=sql.Identifier(name),
                    rows=sql.Literal(rows),
                    words=sql.Literal(_WORDS),
                    word=sql.SQL(_WORD),
                    line=sql.SQL(_LINE),
                )
            )
