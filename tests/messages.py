"""What errors say: the words of every message in the package, and where else those words stand.

A message is known to a text that has three words in a row of it which no other message has (all of its words, where it
has fewer), and to a test that compares with two words or more of it, and with nothing else.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["Message", "Phrase", "Texts", "messages_in", "texts_in_tests", "unknown"]

Phrase: TypeAlias = tuple[str, ...]

WORDS = 3
# So many messages may have the words that a test compares with.
MOST_ALIKE = 3


@dataclass(frozen=True)
class Message:
    """An error's message, as it stands in the code.

    Attributes:
        place: The file and line.
        pieces: Its constant parts, in order.
    """

    place: str
    pieces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {' … '.join(self.pieces)}"

    @property
    def parts(self) -> frozenset[Phrase]:
        """Any two words in a row, and more."""
        return frozenset(
            part
            for piece in self.pieces
            for count in range(2, len(_words(piece)) + 1)
            for part in _phrases(piece, count)
        )

    @property
    def phrases(self) -> frozenset[Phrase]:
        """What it can be known by."""
        found = {phrase for piece in self.pieces for phrase in _phrases(piece, WORDS)}
        return frozenset(found or {phrase for piece in self.pieces for phrase in _phrases(piece, len(_words(piece)))})


def messages_in(folder: Path, errors: Iterable[str]) -> list[Message]:
    """Collect the messages of errors of some classes from the files of a folder.

    What is handed on from elsewhere (another error's message, a parameter) has no words of its own, and is left out.
    """
    names = set(errors)
    found = []
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for scope, call in _calls(tree):
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", None)
            told = _message_of(call)
            if name in names and told is not None:
                place = f"{path.relative_to(folder.parent)}:{call.lineno}"
                found += [Message(place, pieces) for pieces in _spelled(told, scope) if _words(" ".join(pieces))]
    return found


@dataclass
class Texts:
    """What is said elsewhere.

    Attributes:
        phrases: All phrases of three words and fewer.
        whole: Short texts, each with all of its words.
    """

    phrases: set[Phrase] = field(default_factory=set)
    whole: set[Phrase] = field(default_factory=set)

    def add(self, text: str) -> None:
        """Take a text in."""
        for count in range(1, WORDS + 1):
            self.phrases.update(_phrases(text, count))
        words = tuple(_words(text))
        if len(words) > 1:
            self.whole.add(words)


def texts_in_tests(folder: Path) -> Texts:
    """Collect what tests compare with: their texts, without docstrings and comments."""
    texts = Texts()
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                texts.add(node.value)
    return texts


def unknown(messages: list[Message], texts: Texts) -> list[Message]:
    """Choose the messages that no text knows."""
    different = {it.pieces: it for it in messages}.values()
    shared = Counter(phrase for it in different for phrase in it.phrases)
    parts = Counter(part for it in different for part in it.parts)
    missing = []
    for message in messages:
        own = {phrase for phrase in message.phrases if shared[phrase] == 1} or message.phrases
        compared = {part for part in message.parts if parts[part] <= MOST_ALIKE}
        if not own & texts.phrases and not compared & texts.whole:
            missing.append(message)
    return missing


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", re.sub(r"\\[a-zA-Z]", " ", text).lower())


def _phrases(text: str, count: int) -> Iterator[Phrase]:
    words = _words(text)
    return (tuple(words[start : start + count]) for start in range(len(words) - count + 1) if count)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Every call, with the function that it stands in."""
    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        scope, node = waiting.pop()
        if isinstance(node, ast.Call):
            yield scope, node
        inner = node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        waiting += [(inner, child) for child in ast.iter_child_nodes(node)]


def _message_of(call: ast.Call) -> ast.expr | None:
    if call.args:
        return call.args[0]
    return next((keyword.value for keyword in call.keywords if keyword.arg == "message"), None)


def _spelled(node: ast.expr, scope: ast.AST) -> list[tuple[str, ...]]:
    """Write out a text's constant parts; several times where it is one thing or another."""
    match node:
        case ast.Constant(value=str(text)):
            return [(text,)]
        case ast.JoinedStr(values=values):
            return [tuple(it.value for it in values if isinstance(it, ast.Constant) and isinstance(it.value, str))]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [one + other for one in _spelled(left, scope) for other in _spelled(right, scope)]
        case ast.IfExp(body=body, orelse=otherwise):
            return _spelled(body, scope) + _spelled(otherwise, scope)
        case ast.Name(id=name):
            return [
                pieces
                for it in ast.walk(scope)
                if isinstance(it, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in it.targets)
                if not any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(it.value))
                for pieces in _spelled(it.value, scope)
            ]
        case _:
            return []
