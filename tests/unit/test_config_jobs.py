import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.config import (
    SECTIONS,
    IncrementalFlags,
    JobFlags,
    JobOptions,
    Settings,
    load_settings,
    resolve_job,
    resolve_options,
)
from etlcli.config.names import default_name, is_valid_name, job_name
from etlcli.errors import ConfigError, UsageError
from etlcli.model import DEFAULT_MARK, DEFAULT_MAX_DELETES, Incremental, Job, Overlap, Selection, Share

CONFIG = """
[cache]
ttl = "1h"
max_cached_bytes = "2MB"
[tables.movies]
[tables.orders]
source = 'sales."Order Details"'
where = "a > 1"
columns = ["a", "b"]
key = ["a"]
limit = 5
destination = "orders-table"
cache = "orders-cache"
ttl = 60
on_unrepresentable = "fail"
json = "string"
[tables.top]
query = "select 1"
[tables.lost]
where = "env:MISSING"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make(tmp_path, CONFIG)


def make(folder: Path, text: str) -> Settings:
    (folder / "momento-etl.toml").write_text(text)
    return load_settings(environ={}, folder=folder)


def test_the_flags_are_the_options_that_have_one() -> None:
    assert {field.name for field in dataclasses.fields(JobFlags)} == {
        name for name, option in SECTIONS["tables"].options.items() if option.flag
    }


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("movies", "movies"),
        (" movies ", "movies"),
        ("public.movies", "movies"),
        ('public."Movies"', "Movies"),
        ('"public"."movies"', "movies"),
        ('"public.movies"', "public.movies"),
        ("sales.orders", "sales.orders"),
        ('sales."Order Details"', "sales.Order Details"),
        ('"a""b"', 'a"b'),
        ("Movies", "Movies"),
        ("публичная.т", "публичная.т"),
    ],
)
def test_job_names(typed: str, name: str) -> None:
    assert job_name(typed) == name


@pytest.mark.parametrize("typed", ["", "  ", '"', '"a', '"a"b', 'a."b'])
def test_names_that_are_not_well_formed(typed: str) -> None:
    with pytest.raises(UsageError):
        job_name(typed)


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("movies", "movies"),
        ("sales.Order Details", "sales.Order_Details"),
        ("t", "t-table"),
        ("ab", "ab-table"),
        ("a b", "a_b"),
        ("$", "_-table"),
        ("größe", "gr__e-d353a2"),
    ],
)
def test_default_names(job: str, name: str) -> None:
    assert default_name(job, "table") == name


def test_names_in_other_scripts_stay_apart() -> None:
    assert default_name("фильмы", "table") != default_name("города", "table")


@given(st.text(min_size=1, max_size=240))
def test_default_names_are_valid(job: str) -> None:
    assert is_valid_name(default_name(job, "table"))


@pytest.mark.parametrize("name", ["", "ab", "a b", "a/b", "a" * 256, "é12", "abc\n"])
def test_names_that_are_not_valid(name: str) -> None:
    assert not is_valid_name(name)


def test_a_table_without_a_section(settings: Settings) -> None:
    assert resolve_job(settings, 'sales."Big Table"') == Job(
        name="sales.Big Table",
        selection=Selection(table='sales."Big Table"'),
        cache="sales.Big_Table",
        destination="sales.Big_Table",
        ttl_seconds=3600,
        max_cached_bytes=2_000_000,
    )


def test_a_section_with_everything(settings: Settings) -> None:
    assert resolve_job(settings, "orders") == Job(
        name="orders",
        selection=Selection(table='sales."Order Details"', where="a > 1", columns=("a", "b"), limit=5),
        cache="orders-cache",
        destination="orders-table",
        key=("a",),
        ttl_seconds=60,
        max_cached_bytes=2_000_000,
    )
    assert resolve_options(settings, "orders") == JobOptions("fail", "string")
    assert resolve_options(settings, "movies") == JobOptions("reject", "native")


def test_flags_beat_the_section(settings: Settings) -> None:
    flags = JobFlags(
        where="c = 2",
        columns='c, "d, e"',
        key="c",
        limit=7,
        destination="films",
        cache="films-cache",
        mode="upsert",
        ttl="2h",
        on_unrepresentable="string",
    )
    assert resolve_job(settings, "orders", flags) == Job(
        name="orders",
        selection=Selection(table='sales."Order Details"', where="c = 2", columns=("c", "d, e"), limit=7),
        cache="films-cache",
        destination="films",
        key=("c",),
        ttl_seconds=7200,
        max_cached_bytes=2_000_000,
        narrowed_by=("--where", "--columns", "--limit"),
    )
    assert resolve_options(settings, "orders", flags).on_unrepresentable == "string"


TRANSFORMED = """
[cache]
layout = "rows"
[tables.orders]
mode = "replace"
null = "null"
timestamps = "epoch"
drop = ["note"]
rename = { "Order Id" = "id" }
cast = { total = "S", paid = "BOOL" }
attributes = { sk = ' {id}#{"a b"} ', version = 1, rate = 0.12345678901234567890, live = true }
mask = { email = "hmac" }
mask_key = "env:KEY"
transform = "my.transforms:clean"
max_rejects = "0.5%"
max_deletes = 10
mark = "_mine"
schema_contract = "freeze"
"""

NEW_ROWS = """
[tables.events]
incremental_key = "updated_at"
overlap = "10m"
[tables.numbered]
incremental_key = "id"
overlap = 50
where = "id > 0"
[tables.plain]
"""


def transformed(folder: Path, environ: dict[str, str]) -> Settings:
    (folder / "momento-etl.toml").write_text(TRANSFORMED)
    return load_settings(environ=environ, folder=folder)


def test_a_section_with_transforms(tmp_path: Path) -> None:
    settings = transformed(tmp_path, {"KEY": "s3cret"})
    options = resolve_options(settings, "orders")
    assert options == JobOptions(
        null="null",
        timestamps="epoch",
        drop=("note",),
        rename={"Order Id": "id"},
        cast={"total": "S", "paid": "BOOL"},
        attributes={
            "sk": ' {id}#{"a b"} ',
            "version": 1,
            "rate": Decimal("0.12345678901234567890"),
            "live": True,
        },
        mask={"email": "hmac"},
        mask_key="s3cret",
        transform="my.transforms:clean",
    )
    job = resolve_job(settings, "orders")
    assert (job.layout, job.mode, job.mark, job.freezes_schema) == ("rows", "replace", "_mine", True)
    assert job.max_deletes == Share(Decimal(10), is_percentage=False)
    assert job.incremental is None
    assert "s3cret" not in repr(options)


def test_flags_for_bounds_beat_the_section(tmp_path: Path) -> None:
    settings = transformed(tmp_path, {"KEY": "k"})
    assert resolve_job(settings, "orders").max_rejects == Share(Decimal("0.5"), is_percentage=True)
    flags = JobFlags(max_rejects="7", max_deletes="1%", mode="upsert")
    assert resolve_job(settings, "orders", flags).max_rejects == Share(Decimal(7), is_percentage=False)
    job = resolve_job(settings, "orders", flags)
    assert job.max_deletes == Share(Decimal(1), is_percentage=True)
    assert job.mode == "upsert"


def test_the_defaults_of_a_job(settings: Settings) -> None:
    job = resolve_job(settings, "movies")
    assert (job.mode, job.mark, job.max_deletes) == ("upsert", DEFAULT_MARK, DEFAULT_MAX_DELETES)
    assert (job.incremental, job.narrowed_by, job.freezes_schema) == (None, (), False)


def test_a_schema_contract_on_the_command_line_beats_the_section(tmp_path: Path) -> None:
    settings = transformed(tmp_path, {"KEY": "k"})
    assert resolve_job(settings, "orders").freezes_schema
    assert not resolve_job(settings, "orders", JobFlags(schema_contract="evolve")).freezes_schema
    assert resolve_job(settings, "other", JobFlags(schema_contract="freeze")).freezes_schema
    with pytest.raises(UsageError, match='--schema-contract has to be "evolve" or "freeze"; found "thaw"'):
        resolve_job(settings, "orders", JobFlags(schema_contract="thaw"))


def test_incremental_jobs(tmp_path: Path) -> None:
    settings = make(tmp_path, NEW_ROWS)
    events = resolve_job(settings, "events")
    assert events.incremental == Incremental("updated_at", Overlap(600, is_duration=True))
    assert resolve_job(settings, "numbered").incremental == Incremental("id", Overlap(50, is_duration=False))
    since = resolve_job(settings, "events", JobFlags(), IncrementalFlags(since="2026-08-14"))
    assert since.incremental == Incremental("updated_at", Overlap(600, is_duration=True), since="2026-08-14")
    full = resolve_job(settings, "numbered", JobFlags(), IncrementalFlags(full_refresh=True))
    assert full.incremental == Incremental("id", Overlap(50, is_duration=False), full_refresh=True)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("events", IncrementalFlags(since="1", full_refresh=True), "--since and --full-refresh exclude each other"),
        ("plain", IncrementalFlags(since=""), "--since, and the job plain is not an incremental one"),
        ("plain", IncrementalFlags(full_refresh=True), "--full-refresh, and the job plain is not an incremental one"),
        ("other", IncrementalFlags(full_refresh=True), "the job other is not an incremental one"),
    ],
)
def test_flags_that_only_incremental_jobs_take(
    tmp_path: Path, name: str, flags: IncrementalFlags, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_job(make(tmp_path, NEW_ROWS), name, JobFlags(), flags)
    assert message in caught.value.message
    assert caught.value.hint
    if name != "events":
        assert f"[tables.{name}]: incremental_key = " in caught.value.hint


@pytest.mark.parametrize(
    ("flags", "narrowed_by"),
    [
        (JobFlags(), ()),
        (JobFlags(limit=5), ("--limit",)),
        (JobFlags(where="id > 5"), ("--where",)),
        (JobFlags(columns="id"), ("--columns",)),
        (JobFlags(query="select 1 as id"), ("--query",)),
        (JobFlags(where="true", columns="id", limit=1), ("--where", "--columns", "--limit")),
        (JobFlags(key="id", cache="elsewhere", destination="elsewhere", ttl="1h", mode="upsert"), ()),
    ],
)
def test_what_narrows_a_run(tmp_path: Path, flags: JobFlags, narrowed_by: tuple[str, ...]) -> None:
    # What the section says is the job itself: its `where` narrows nothing.
    settings = make(tmp_path, NEW_ROWS)
    assert resolve_job(settings, "numbered", flags).narrowed_by == narrowed_by


@pytest.mark.parametrize(
    ("section", "flags", "named"),
    [
        ('mode = "replace"', JobFlags(limit=1), "limit (--limit)"),
        ('mode = "replace"', JobFlags(where="a"), "where (--where)"),
        ('mode = "replace"', JobFlags(query="select 1"), "query (--query)"),
        ('mode = "replace"\nwhere = "a"\nlimit = 3', JobFlags(), "where (--where), limit (--limit)"),
        ('mode = "replace"\nincremental_key = "at"', JobFlags(), "incremental_key"),
        ('incremental_key = "at"', JobFlags(mode="replace"), "incremental_key"),
        ('query = "select 1"', JobFlags(mode="replace"), "query (--query)"),
    ],
)
def test_replace_has_to_see_all_rows(tmp_path: Path, section: str, flags: JobFlags, named: str) -> None:
    settings = make(tmp_path, f"[tables.t1]\n{section}\n")
    with pytest.raises(UsageError) as caught:
        resolve_job(settings, "t1", flags)
    assert caught.value.message == f"mode replace of t1 does not go with {named}"
    assert "upsert" in (caught.value.hint or "")
    assert resolve_job(settings, "t1", JobFlags(mode="upsert")).mode == "upsert"


def test_replace_goes_with_columns_and_a_key(tmp_path: Path) -> None:
    settings = make(tmp_path, '[tables.t1]\nmode = "replace"\ncolumns = ["a"]\n')
    assert resolve_job(settings, "t1", JobFlags(columns="a,b", key="a")).mode == "replace"


def test_only_what_makes_items_needs_the_key_of_masks(tmp_path: Path) -> None:
    settings = transformed(tmp_path, {})
    assert resolve_job(settings, "orders").name == "orders"
    with pytest.raises(ConfigError, match=r"`mask_key` in \[tables\.orders\]: env:KEY refers to"):
        resolve_options(settings, "orders")


def test_the_environment_is_under_the_section_s_own_ttl(tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text(CONFIG)
    settings = load_settings(environ={"MOMENTO_ETL_CACHE_TTL": "2h"}, folder=tmp_path)
    assert resolve_job(settings, "movies").ttl_seconds == 7200
    assert resolve_job(settings, "orders").ttl_seconds == 60


def test_one_cache_for_all_jobs(tmp_path: Path) -> None:
    settings = make(tmp_path, "[cache]\nname = 'etl'\n[tables.other]\ncache = 'own'\n")
    assert resolve_job(settings, "movies").cache == "etl"
    assert resolve_job(settings, "movies", JobFlags(cache="flag")).cache == "flag"
    assert resolve_job(settings, "other").cache == "own"


def test_the_flag_beats_the_job_s_bound_on_writes_and_that_the_one_for_all(tmp_path: Path) -> None:
    settings = make(tmp_path, "[destination]\nmax_writes = 1000\n[tables.orders]\nmax_writes = 50\n")
    assert resolve_job(settings, "movies").max_writes == 1000
    assert resolve_job(settings, "orders").max_writes == 50
    assert resolve_job(settings, "orders", JobFlags(max_writes="7")).max_writes == 7
    assert resolve_job(make(tmp_path, ""), "movies").max_writes is None


def test_a_query_has_the_name_that_it_is_given(settings: Settings) -> None:
    job = resolve_job(settings, "Top films", JobFlags(query=" select 1 "))
    assert job.name == "Top films"
    assert job.selection == Selection(query="select 1")
    assert (job.cache, job.destination) == ("Top_films", "Top_films")


def test_a_query_for_a_section_that_reads_its_own_table_or_a_query(settings: Settings) -> None:
    for name in ("movies", "top"):
        assert resolve_job(settings, name, JobFlags(query="select 2")).selection == Selection(query="select 2")
    assert resolve_job(settings, "top").selection == Selection(query="select 1")


def test_the_section_of_a_table_that_is_typed_in_another_way(settings: Settings, tmp_path: Path) -> None:
    assert resolve_job(settings, "public.movies").name == "movies"
    settings = make(tmp_path, "[tables.movies]\nsource = 'public.movies'\ndestination = 'films'\n")
    assert resolve_job(settings, '"public"."movies"').destination == "films"


def test_another_table_that_would_be_the_same_job(settings: Settings, tmp_path: Path) -> None:
    settings = make(tmp_path, "[tables.movies]\nsource = 'archive.movies'\n[tables.top]\nquery = 'select 1'\n")
    for typed in ("public.movies", "public.top"):
        with pytest.raises(UsageError, match="reads something else under this name") as caught:
            resolve_job(settings, typed)
        assert "--table" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        (None, JobFlags(), "no table is named"),
        ("  ", JobFlags(), "no table is named"),
        (None, JobFlags(query="select 1"), "--query needs a name for its job"),
        ("orders", JobFlags(query="select 1"), '--query, and [tables.orders] reads the table sales."Order Details"'),
        ("m", JobFlags(query=" "), "--query is empty"),
        ("m", JobFlags(where=""), "--where is empty"),
        ("m", JobFlags(limit=0), '--limit has to be at least 1; found "0"'),
        ("m", JobFlags(limit=-5), '--limit has to be at least 1; found "-5"'),
        ("m", JobFlags(limit="many"), '--limit has to be a whole number; found "many"'),
        ("m", JobFlags(columns="a,b,a"), "--columns names the column `a` twice"),
        ("m", JobFlags(columns=""), "--columns has an empty name in it"),
        ("m", JobFlags(columns="a,,b"), "--columns has an empty name in it"),
        ("m", JobFlags(columns='a"b'), "--columns is not a list of names"),
        ("m", JobFlags(columns='"a'), "--columns is not a list of names"),
        ("m", JobFlags(key="a,a"), "--key names the column `a` twice"),
        ("m", JobFlags(key="a,b,c"), "--key names 3 columns; at most 2 are possible"),
        ("m", JobFlags(ttl="25h"), '--ttl has to be at most 24h; found "25h"'),
        ("m", JobFlags(ttl="0"), '--ttl has to be at least 1s; found "0"'),
        ("m", JobFlags(ttl="soon"), "--ttl has to be a duration such as"),
        ("m", JobFlags(destination="a b"), "--destination has to be a DynamoDB table's name: 3 to 255 letters"),
        ("m", JobFlags(destination="ab"), "--destination has to be"),
        ("m", JobFlags(max_writes="0"), "--max-writes has to be at least 1; found "),
        (
            "m",
            JobFlags(cache="a/b"),
            "--cache has to be a cache's name: 3 to 255 letters (a to z), digits, dots, hyphens",
        ),
        ("m", JobFlags(cache="x" * 256), "--cache has to be"),
        ("m", JobFlags(mode="merge"), '--mode has to be "upsert" or "replace"; found "merge"'),
        ("m", JobFlags(max_rejects="few"), '--max-rejects has to be a number of rows, or a percentage such as "50%"'),
        ("m", JobFlags(max_rejects="101%"), "--max-rejects has to be a number of rows"),
        ("m", JobFlags(max_deletes="-1"), "--max-deletes has to be a number of items"),
        ("m", JobFlags(on_unrepresentable="drop"), '--on-unrepresentable has to be "reject" or "string" or "fail"'),
        ('"m', JobFlags(), "not well formed"),
        ("a\nb", JobFlags(), "cannot be a job's name"),
        ("x" * 256, JobFlags(), "the job's name is too long to name its cache: 256 characters"),
        ("x" * 256, JobFlags(cache="own"), "the job's name is too long to name its table"),
    ],
)
def test_what_cannot_be_a_job(settings: Settings, name: str | None, flags: JobFlags, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_job(settings, name, flags)
    assert expected in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_the_hint_shows_an_example_that_a_shell_takes(settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_job(settings, "m", JobFlags(ttl="soon"))
    assert caught.value.hint == "For example: --ttl 2h"


def test_no_name_but_jobs_in_the_config(settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_job(settings, None)
    assert caught.value.hint == "Add --table NAME. Configured: movies, orders, top, lost."


def test_a_reference_that_leads_nowhere(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="refers to the environment variable MISSING, which is not set"):
        resolve_job(settings, "lost")


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5, unique=True))
def test_any_column_can_be_named_on_the_command_line(names: list[str]) -> None:
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    assert SECTIONS["tables"].options["columns"].kind.of_text(quoted) == tuple(names)
