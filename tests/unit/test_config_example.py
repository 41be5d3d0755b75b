import re
import tomllib
from pathlib import Path

import pytest

from etlcli.config import SECTIONS, Option, example_file, load_settings
from etlcli.config.outline import header

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
SECRETS = ("MY_MOMENTO_KEY", "MY_MASK_KEY", "MY_PASSWORD")
OPTIONS = [option for section in SECTIONS.values() for option in section.options.values()]


def uncommented() -> str:
    """The example with every setting taken out of its comment: ``#key = value``; prose has a space after the ``#``."""
    return re.sub(r"^#(?=\w)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_it_has_every_key_and_no_other() -> None:
    tables = tomllib.loads(uncommented())
    tables["tables"] = tables["tables"]["movies"]
    assert {name: list(content) for name, content in tables.items()} == {
        name: list(section.options) for name, section in SECTIONS.items()
    }


def test_as_it_stands_it_changes_nothing(tmp_path: Path) -> None:
    as_it_stands = load_settings(str(EXAMPLE), environ={}, folder=tmp_path)
    empty = load_settings(environ={}, folder=tmp_path)
    assert as_it_stands.cache == empty.cache
    assert as_it_stands.destination == empty.destination
    assert dict(as_it_stands.origins) == {}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.path))
def test_every_setting_is_valid_and_arrives(option: Option, tmp_path: Path) -> None:
    section = SECTIONS[option.section]
    path = tmp_path / "one.toml"
    path.write_text(f"{header(section, 'movies')}\n{option.name} = {option.example}\n")
    settings = load_settings(str(path), environ=dict.fromkeys(SECRETS, "k"), folder=tmp_path)
    where = settings.tables["movies"] if section.named else getattr(settings, option.section)
    value = getattr(where, option.name)
    is_secret = option.example.strip('"').removeprefix("env:") in SECRETS
    assert value == ("k" if is_secret else option.kind.of_toml(option.example_value()))
    assert dict(settings.deferred) == {}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.path))
def test_every_option_is_described(option: Option) -> None:
    assert option.doc.endswith(".")
    assert option.name in option.path
    if option.flag:
        assert option.flag == f"--{option.name.replace('_', '-')}"
        assert option.kind.of_text(" ".join(option.example_text().split("'")).strip()) is not None
    if option.secret:
        assert not option.kind.shown


def test_lines_fit_a_screen() -> None:
    assert max(map(len, example_file().splitlines())) <= 120
