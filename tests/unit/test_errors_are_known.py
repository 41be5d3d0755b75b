"""Every error in the code is met by a test, or explained in the README."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import etlcli
from etlcli.errors import EtlError
from tests.messages import Message, Texts, messages_in, texts_in_tests, unknown

ROOT = Path(__file__).parents[2]
# These two end as one of the others, or as a rejected row.
BESIDES = ("BadValue", "Unrepresentable")


def errors() -> set[str]:
    """The names of all classes of errors."""
    for module in pkgutil.walk_packages(etlcli.__path__, "etlcli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind: type[EtlError]) -> Iterator[str]:
        yield kind.__name__
        for each in kind.__subclasses__():
            yield from below(each)

    return {*below(EtlError), *BESIDES}


def test_every_error_is_met_by_a_test_or_explained() -> None:
    messages = messages_in(ROOT / "etlcli", errors())
    assert len(messages) > 390
    texts = texts_in_tests(ROOT / "tests")
    # The reference behind it is written by the program, and explains nothing of an error.
    texts.add((ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Reference\n")[0])
    missing = unknown(messages, texts)
    assert not missing, "no test and no line of the README knows of:\n" + "\n".join(map(str, missing))


@pytest.mark.parametrize(
    ("code", "known", "is_known"),
    [
        ('raise EtlError("the moon is in the way")', "so the moon is in it", True),
        ('raise EtlError("the moon is in the way")', "the moon", True),
        ('raise EtlError("the moon is in the way")', "the moon hides", False),
        ('raise EtlError("the moon is in the way")', "moon", False),
        ('raise EtlError(f"{what} is in the way of {it}")', "what is it in the way", True),
        ('raise EtlError(f"{what} is in the way of {it}")', "in of", False),
        ('raise EtlError(f"{what}: gone", hint="look elsewhere")', "look elsewhere", False),
        ('raise EtlError("a" if what else "the way is long")', "the way is", False),
        ('text = "the moon is in the way"\nraise EtlError(message=text)', "the moon is", True),
        ("raise EtlError(text)", "", True),
    ],
)
def test_what_counts_as_known(tmp_path: Path, code: str, known: str, *, is_known: bool) -> None:
    (tmp_path / "code.py").write_text(code, encoding="utf-8")
    texts = Texts()
    texts.add(known)
    assert (not unknown(messages_in(tmp_path, {"EtlError"}), texts)) is is_known


def test_what_two_messages_share_tells_neither() -> None:
    one = Message("a", ("the table is not there, look again",))
    other = Message("b", ("the cache is not there, look again",))
    texts = Texts()
    texts.add("it said that it is not there, look again and again")
    assert unknown([one, other], texts) == [one, other]
