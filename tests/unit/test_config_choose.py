"""Which jobs are run: those named, all of the config's, or a schema's tables; and what does not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etlcli.config import (
    IncrementalFlags,
    JobFlags,
    Request,
    Settings,
    check_request,
    choose,
    for_each,
    load_settings,
)
from etlcli.errors import UsageError
from etlcli.model import BaseTable

ENVIRON = {"DATABASE_URL": "postgresql://host/shop", "MOMENTO_API_KEY": "key"}


def settings(tmp_path: Path, config: str = "") -> Settings:
    (tmp_path / "momento-etl.toml").write_text(config, encoding="utf-8")
    return load_settings(environ=ENVIRON, folder=tmp_path)


def tables(schema: str, *names: str, visible: bool = False) -> list[BaseTable]:
    """Tables as the source lists them."""
    return [
        BaseTable(".".join(part if part.islower() else f'"{part}"' for part in (schema, name)), schema, name, visible)
        for name in names
    ]


def request(*names: str, every: bool = False, schema: str | None = None, **flags: Any) -> Request:
    incremental = IncrementalFlags(
        since=flags.pop("since", None),
        full_refresh=flags.pop("full_refresh", False),
    )
    return Request(tables=names, every=every, schema=schema, flags=JobFlags(**flags), incremental=incremental)


def jobs(found: Settings, wanted: Request, listed: list[BaseTable] | None = None) -> dict[str, tuple[str | None, str]]:
    """Job to what it reads and where it writes, in order."""
    check_request(wanted)
    return {
        job.name: (job.selection.table or job.selection.query, job.destination)
        for job, _ in choose(found, wanted, listed or [])
    }


def refused(found: Settings, wanted: Request, listed: list[BaseTable] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        jobs(found, wanted, listed)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (request(schema="sales"), "--schema, without --all"),
        (request("a", schema="sales"), "--schema, without --all"),
        (request(every=True, schema=" "), "the schema's name is empty"),
        (request("a", every=True), "--all and --table exclude each other"),
        (request("a", "b", query="select 1"), "--query is for one job"),
        (request("a", "b", where="x > 1"), "--where is for one job"),
        (request("a", "b", columns="a"), "--columns is for one job"),
        (request("a", "b", key="a"), "--key is for one job"),
        (request("a", "b", destination="t-1"), "--destination is for one job"),
        (request("a", "b", since="7"), "--since is for one job"),
        (request(every=True, where="x > 1"), "--where is for one job"),
        (request(every=True, schema="sales", key="id"), "--key is for one job"),
    ],
)
def test_what_cannot_be_meant_together(wanted: Request, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_request(wanted)
    assert message in caught.value.message
    assert caught.value.hint


def test_one_job_is_as_it_always_was(tmp_path: Path) -> None:
    found = settings(tmp_path)
    wanted = request("movies", where="id > 1", key="id", destination="films", columns="id", since=None)
    assert wanted.is_single
    check_request(wanted)
    ((job, _),) = choose(found, wanted)
    assert (job.name, job.destination, job.key, job.selection.where) == ("movies", "films", ("id",), "id > 1")
    assert request().is_single
    assert "no table is named" in refused(found, request()).message
    # --all asks for several, however many there are: a script reads the same object.
    assert not request(every=True).is_single
    assert not request("a", "b").is_single


def test_named_jobs_come_in_the_order_of_the_command_line(tmp_path: Path) -> None:
    found = settings(tmp_path, '[tables.films]\nsource = "public.movies"\ndestination = "cinema"\n')
    assert jobs(found, request("sales.b", "films", "public.a")) == {
        "sales.b": ("sales.b", "sales.b"),
        "films": ("public.movies", "cinema"),
        "a": ("public.a", "a-table"),
    }
    for twice in (("a.b", "a.b"), ("films", "films"), ("movies", "public.movies"), ('"movies"', "movies")):
        error = refused(found, request("first", *twice))
        assert f"is asked for more than once: {twice[0]}, {twice[1]}" in error.message


def test_all_jobs_come_in_the_files_order(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        '[tables.zebra]\n[tables.apes]\nquery = "select 1 as id"\n[tables."odd name"]\nsource = "sales.odd"\n',
    )
    assert jobs(found, request(every=True)) == {
        "zebra": ("zebra", "zebra"),
        "apes": ("select 1 as id", "apes"),
        "odd name": ("sales.odd", "odd_name"),
    }


def test_all_of_no_jobs(tmp_path: Path) -> None:
    empty = refused(settings(tmp_path, "[cache]\nttl = '1h'\n"), request(every=True))
    assert "momento-etl.toml has none" in empty.message
    assert "--all --schema" in (empty.hint or "")
    (tmp_path / "bare").mkdir()
    bare = refused(load_settings(environ=ENVIRON, folder=tmp_path / "bare"), request(every=True))
    assert "there is no config" in bare.message


def test_flags_are_for_each(tmp_path: Path) -> None:
    found = settings(tmp_path, '[tables.aaa]\nttl = "5m"\ncache = "own"\n[tables.bbb]\n')
    wanted = request(
        every=True,
        limit="7",
        ttl="90s",
        cache="shared",
        mode="upsert",
        max_rejects="3",
        on_unrepresentable="fail",
        schema_contract="freeze",
    )
    chosen = choose(found, wanted)
    assert [(job.cache, job.ttl_seconds, job.selection.limit) for job, _ in chosen] == [("shared", 90, 7)] * 2
    assert [(str(job.max_rejects), job.freezes_schema) for job, _ in chosen] == [("3", True)] * 2
    assert [options.on_unrepresentable for _, options in chosen] == ["fail"] * 2
    # Without them each job has its own.
    assert [job.cache for job, _ in choose(found, request(every=True))] == ["own", "bbb"]


def test_all_rows_are_for_jobs_that_take_only_new_ones(tmp_path: Path) -> None:
    found = settings(
        tmp_path, '[tables.aaa]\nincremental_key = "at"\n[tables.bbb]\n[tables.ccc]\nsource = "public.d"\n'
    )
    for wanted in (request(every=True, full_refresh=True), request("bbb", "public.aaa", full_refresh=True)):
        refreshed = {job.name: job.incremental and job.incremental.full_refresh for job, _ in choose(found, wanted)}
        assert (refreshed["aaa"], refreshed["bbb"]) == (True, None)
    none = refused(found, request("bbb", "ccc", full_refresh=True))
    assert "none of the jobs is an incremental one" in none.message


def test_a_schemas_tables(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        """
        [tables.archive]
        source = "old.orders"
        [tables.asked]
        query = "select * from sales.orders"
        [tables.by_customer]
        source = "sales.orders"
        destination = "one"
        key = ["customer"]
        [tables.by_day]
        source = 'sales."orders"'
        destination = "two"
        [tables."sales.lines"]
        ttl = "5m"
        [tables.parts]
        source = "SALES.Parts"
        [tables.lines]
        """,
    )
    listed = tables("sales", "Order Details", "customers", "lines", "orders", "parts")
    assert jobs(found, request(every=True, schema="sales"), listed) == {
        "sales.Order Details": ('sales."Order Details"', "sales.Order_Details"),
        "sales.customers": ("sales.customers", "sales.customers"),
        "sales.lines": ("sales.lines", "sales.lines"),
        "by_customer": ("sales.orders", "one"),
        "by_day": ("sales.orders", "two"),
        "parts": ("sales.parts", "parts"),
    }
    assert next(job for job, _ in choose(found, request(every=True, schema="sales"), listed)).ttl_seconds == 4800
    ttls = {job.name: job.ttl_seconds for job, _ in choose(found, request(every=True, schema="sales"), listed)}
    assert ttls["sales.lines"] == 300


def test_a_section_without_a_schema_reads_what_the_search_path_finds(tmp_path: Path) -> None:
    found = settings(tmp_path, '[tables.orders]\ndestination = "here"\n')
    wanted = request(every=True, schema="sales")
    assert jobs(found, wanted, tables("sales", "orders", visible=True)) == {"orders": ("sales.orders", "here")}
    assert jobs(found, wanted, tables("sales", "orders")) == {"sales.orders": ("sales.orders", "sales.orders")}
    # What `--table public.orders` would be is this job, wherever the search path leads.
    assert jobs(found, request(every=True, schema="public"), tables("public", "orders")) == {
        "orders": ("public.orders", "here")
    }


def test_case_is_kept_where_both_are_there(tmp_path: Path) -> None:
    found = settings(tmp_path, '[tables.big]\nsource = "sales.Orders"\n')
    wanted = request(every=True, schema="sales")
    assert jobs(found, wanted, tables("sales", "Orders", "orders")) == {
        "big": ('sales."Orders"', "big"),
        "sales.orders": ("sales.orders", "sales.orders"),
    }
    assert jobs(found, wanted, tables("sales", "orders")) == {"big": ("sales.orders", "big")}


@pytest.mark.parametrize("name", ["a.b", 'we"ird', "фильмы", "Order Details", "select"])
def test_a_section_that_a_hint_proposed_is_found_again(tmp_path: Path, name: str) -> None:
    odd = "sales" if name != "select" else "s.x"
    listed = [BaseTable(f'"{odd}"."{name}"', odd, name, is_visible=False)]
    wanted = request(every=True, schema="x")
    (job,) = jobs(settings(tmp_path), wanted, [entry._replace(typed=quoted(entry)) for entry in listed])
    toml = f"[tables.'{job}']\ndestination = \"pasted\"\n"
    found = jobs(settings(tmp_path, toml), wanted, [entry._replace(typed=quoted(entry)) for entry in listed])
    assert found == {job: (quoted(listed[0]), "pasted")}


def quoted(table: BaseTable) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name))


def test_a_section_that_takes_a_tables_name_for_another(tmp_path: Path) -> None:
    wanted = request(every=True, schema="sales")
    found = settings(tmp_path, '[tables."sales.bbb"]\nsource = "sales.aaa"\n')
    error = refused(found, wanted, tables("sales", "aaa", "bbb"))
    assert 'would be the job `sales.bbb`, and [tables."sales.bbb"] reads something else' in error.message
    found = settings(tmp_path, '[tables."sales.bbb"]\nquery = "select 1"\n')
    assert "reads something else" in refused(found, wanted, tables("sales", "bbb")).message


def test_the_cache_of_a_schema(tmp_path: Path) -> None:
    wanted = request(every=True, schema="sales")

    def caches(config: str, wanted: Request, schema: str) -> set[str]:
        return {job.cache for job, _ in choose(settings(tmp_path, config), wanted, tables(schema, "aaa", "bbb"))}

    assert caches("", wanted, "sales") == {"sales"}
    assert caches("", wanted, "x") == {"x-cache"}
    assert caches("", wanted, "Odd Schema") == {"Odd_Schema"}
    assert caches('[cache]\nname = "etl"\n', wanted, "sales") == {"etl"}
    assert caches("", request(every=True, schema="sales", cache="mine"), "sales") == {"mine"}
    assert caches('[tables."sales.aaa"]\ncache = "own"\n', wanted, "sales") == {"own", "sales"}


def test_jobs_that_would_write_over_each_other(tmp_path: Path) -> None:
    wanted = request(every=True, schema="s")
    error = refused(settings(tmp_path), wanted, tables("s", "Order Details", "Order_Details"))
    assert error.message == "the jobs s.Order Details, s.Order_Details would all write to the table s.Order_Details"
    assert '[tables."s.Order Details"], [tables."s.Order_Details"]' in (error.hint or "")
    # One of them says so, the other does not know of it.
    half = settings(tmp_path, '[tables.aaa]\ndestination = "bbb"\n[tables.bbb]\n')
    error = refused(half, request(every=True))
    assert "[tables.bbb]" in (error.hint or "")
    assert "[tables.aaa]" not in (error.hint or "")
    # Where both say so it is a single-table design.
    both = settings(tmp_path, '[tables.aaa]\ndestination = "one"\n[tables.bbb]\ndestination = "one"\n')
    assert {destination for _, destination in jobs(both, request(every=True)).values()} == {"one"}


def test_what_is_wrong_with_any_job_is_told_of_all(tmp_path: Path) -> None:
    config = '[tables.aaa]\nwhere = "x > 1"\n[tables.bbb]\n[tables.ccc]\nincremental_key = "at"\n'
    error = refused(settings(tmp_path, config), request(every=True, mode="replace"))
    first, *lines = error.message.splitlines()
    assert first == "2 of 3 jobs cannot run as they are:"
    assert [line.strip().partition(":")[0] for line in lines] == ["aaa", "ccc"]
    # Of one it is its own error, with nothing around it.
    alone = refused(
        settings(tmp_path, '[tables.aaa]\n[tables.ccc]\nincremental_key = "at"\n'), request(every=True, mode="replace")
    )
    assert alone.message == "mode replace of ccc does not go with incremental_key"


def test_many_errors_are_counted() -> None:
    def fails(number: int) -> int:
        if number % 2:
            raise UsageError(f"not {number}", hint="Make it even.")
        return number

    assert for_each([2, 4], str, fails) == [2, 4]
    with pytest.raises(UsageError) as caught:
        for_each(range(50), str, fails)
    lines = caught.value.message.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("25 of 50 jobs cannot run as they are:", "  ... and 15 more", 12)
    assert caught.value.hint == "Make it even."
