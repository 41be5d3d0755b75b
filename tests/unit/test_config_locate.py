import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.config.locate import Path, locate


def lines_of(text: str) -> dict[Path, int]:
    return locate(text, tomllib.loads(text.replace("\r\n", "\n")))


EVERYTHING = '''\
# a comment with [brackets] and key = "value"
top = 1
"quoted key" = 2
'literal.key' = 3
"esc\\u0061ped" = 4
dotted.one . two = 5

[section] # comment
  indented = "a # no comment"
multi = """
fake = 1
[fake]
escaped \\""" still inside
""""
literal = \'\'\'
fake = 2
\'\'\'\'\'
list = [
  1, # fake = 3
  "x]", [2, 3],
  { inner = 1, other = "y" },
]
inline = { a = 1, b.c = "}", d = { e = [1, 2] } }
after = 1979-05-27T07:32:00Z
[section.sub."quoted.name"]
key = true
[[array]]
in_array = 1
[array.below]
also = 1
[[array]]
in_array = 2
[last]
float = -1.5e3
empty = ""
'''


def test_lines_of_everything_that_toml_has() -> None:
    assert lines_of(EVERYTHING) == {
        ("top",): 2,
        ("quoted key",): 3,
        ("literal.key",): 4,
        ("escaped",): 5,
        ("dotted",): 6,
        ("dotted", "one"): 6,
        ("dotted", "one", "two"): 6,
        ("section",): 8,
        ("section", "indented"): 9,
        ("section", "multi"): 10,
        ("section", "literal"): 15,
        ("section", "list"): 18,
        ("section", "inline"): 23,
        ("section", "inline", "a"): 23,
        ("section", "inline", "b"): 23,
        ("section", "inline", "b", "c"): 23,
        ("section", "inline", "d"): 23,
        ("section", "inline", "d", "e"): 23,
        ("section", "after"): 24,
        ("section", "sub"): 25,
        ("section", "sub", "quoted.name"): 25,
        ("section", "sub", "quoted.name", "key"): 26,
        ("array",): 27,
        ("last",): 33,
        ("last", "float"): 34,
        ("last", "empty"): 35,
    }


def test_windows_line_ends() -> None:
    assert lines_of(EVERYTHING.replace("\n", "\r\n")) == lines_of(EVERYTHING)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "[empty]", "a = 1", "a = {}", "a = []"])
def test_small_texts(text: str) -> None:
    assert set(lines_of(text)) == {(key,) for key in tomllib.loads(text)}


def test_no_lines_where_the_scanner_and_tomllib_disagree() -> None:
    assert locate("a = 1\n", {"b": 1}) == {}
    assert locate("a = [", {}) == {}
    assert locate("= =", {}) == {}


KEYS = st.text(alphabet="ab-_.\"\\ é'\n#=[]", max_size=4)
VALUES = st.sampled_from(
    [
        "1",
        "true",
        '"x = [#"',
        "'#'",
        '"""\nk = 1\n[x]\n"""',
        "'''\n\\\n'''",
        "[\n 1,\n {a = 1},\n]",
        "{ }",
        "1979-05-27",
    ]
)


def quoted(key: str) -> str:
    for character, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        key = key.replace(character, escape)
    return f'"{key}"'


@given(
    st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4), st.sampled_from(["", "\n", "#[x]\n"])
)
def test_each_line_holds_the_key_that_it_is_said_to_hold(tables: dict[str, dict[str, str]], gap: str) -> None:
    text = ""
    expected: dict[Path, int] = {}
    for name, content in tables.items():
        text += gap
        expected[(name,)] = text.count("\n") + 1
        text += f"[{quoted(name)}]\n"
        for key, value in content.items():
            expected[name, key] = text.count("\n") + 1
            text += f"{quoted(key)} = {value} # end\n"
    document: dict[str, Any] = tomllib.loads(text)
    assert locate(text, document) == expected
