from pathlib import Path

import pytest

from etlcli.config.document import find_file, read_file
from etlcli.errors import ConfigError


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_where_it_is_looked_for_and_in_which_order(tmp_path: Path) -> None:
    folder, home = tmp_path / "project", tmp_path / "home"
    folder.mkdir()
    environ = {"HOME": str(home)}
    assert find_file(None, environ, folder) is None
    dot_config = write(home / ".config/momento-etl/config.toml")
    assert find_file(None, environ, folder) == dot_config
    environ["XDG_CONFIG_HOME"] = "relative/is/ignored"
    assert find_file(None, environ, folder) == dot_config
    xdg = write(tmp_path / "xdg/momento-etl/config.toml")
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert find_file(None, environ, folder) == xdg
    here = write(folder / "momento-etl.toml")
    assert find_file(None, environ, folder) == here
    environ["MOMENTO_ETL_CONFIG"] = "named-by-environment.toml"
    assert find_file(None, environ, folder) == folder / "named-by-environment.toml"
    assert find_file("/named/by/flag.toml", environ, folder) == Path("/named/by/flag.toml")


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_file("~/my.toml", {}, Path("/elsewhere")) == tmp_path / "my.toml"
    with pytest.raises(ConfigError, match="no such home"):
        find_file("~nobody-of-this-name/my.toml", {}, tmp_path)


def test_no_home_at_all(tmp_path: Path) -> None:
    assert find_file(None, {}, tmp_path) is None


def test_an_empty_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config names no file"):
        find_file(" ", {}, tmp_path)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml does not exist") as caught:
        read_file(tmp_path / "no.toml")
    assert caught.value.hint is not None
    assert "MOMENTO_ETL_CONFIG" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_file(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By hand, since root may read everything.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        read_file(tmp_path / "closed.toml")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(ConfigError, match="cannot be read: not a file's name"):
        read_file(Path("a\0b"))


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin\.toml, line 2: not UTF-8"):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = postgres://x\n", "line 2, column 5: not TOML: Invalid value"),
        ("a = 1\na = 2\n", "line 2, column 6: not TOML: Cannot overwrite a value"),
        ("[cache\nttl = 1\n", "line 1, column 7: not TOML: Expected"),
        ("a = ", "not TOML: Invalid value at the end of the file"),
        ("a = " + "9" * 5000, "values that are too large"),
        ("a = " + "[" * 5000, "values that are too large"),
        ("# " + "x" * 1_000_000, "over 1 MB"),
    ],
)
def test_not_toml(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "bad.toml", text)
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert expected in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf[cache]\r\nttl = 5\r\n")
    document = read_file(path)
    assert document.tables == {"cache": {"ttl": 5}}
    assert document.place("cache", "ttl") == f"{path}, line 2"
    assert document.place("cache", "unknown") == str(path)


def test_an_empty_file(tmp_path: Path) -> None:
    assert read_file(write(tmp_path / "empty.toml")).tables == {}
