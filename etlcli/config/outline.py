"""Which sections and keys a config file has: those that exist are handed on, the others are problems."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from etlcli.config.document import Document
from etlcli.config.kinds import found
from etlcli.config.problems import Problem
from etlcli.config.schema import SECTIONS, Section
from etlcli.config.suggest import did_you_mean, listed

__all__ = ["Outline", "header"]


def header(section: Section, name: str | None = None) -> str:
    """Write a section's header as it stands in the file: ``[cache]``, ``[tables.movies]``, ``[tables."odd name"]``."""
    if not section.named:
        return f"[{section.name}]"
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"[{section.name}.{name or 'NAME'}]"


class Outline:
    """A file's known sections with their known keys, and what else stands in it.

    Attributes:
        sections: The keys and raw values of each section that there is one of.
        tables: The same of each ``[tables.NAME]``.
        problems: Unknown sections and keys, and sections that are none.
    """

    def __init__(self, document: Document | None) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.problems: list[Problem] = []
        if document is None:
            return
        self._document = document
        for name, content in document.tables.items():
            section = SECTIONS.get(name)
            if section is None:
                self._unknown_section(name, content)
            elif not isinstance(content, dict):
                self._no_section((name,), content, header(section))
            elif section.named:
                self._named(section, content)
            else:
                self.sections[name] = self._known(section, (name,), content)

    def _named(self, section: Section, content: Mapping[str, Any]) -> None:
        for name, keys in content.items():
            path = (section.name, name)
            if not isinstance(keys, dict):
                self._no_section(path, keys, header(section, name))
            elif not name.strip() or not name.isprintable():
                message = f"{name!a} in {header(section)} is not a usable name for a job"
                self._problem(
                    path, message, "Name the section like the table, or as you like, in printable characters."
                )
            else:
                self.tables[name] = self._known(section, path, keys)

    def _known(self, section: Section, path: tuple[str, ...], content: Mapping[str, Any]) -> dict[str, Any]:
        known = {}
        for key, value in content.items():
            if key in section.options:
                known[key] = value
                continue
            here = header(section, path[-1])
            self._problem(
                (*path, key),
                f"unknown key `{key}` in {here}{_nearest(section, key)}",
                f"Keys of {header(section)}: {listed(section.options)}.",
            )
        return known

    def _unknown_section(self, name: str, content: object) -> None:
        hint = f"Sections: {listed(header(section) for section in SECTIONS.values())}."
        if isinstance(content, dict):
            self._problem((name,), f"unknown section [{name}]{did_you_mean(name, SECTIONS)}", hint)
        else:
            homes = _homes(name)
            belongs = f"; it belongs below {homes}" if homes else ""
            self._problem((name,), f"`{name}` stands in no section{belongs}", hint)

    def _no_section(self, path: tuple[str, ...], content: object, wanted: str) -> None:
        # Its value stays out of the message: it may be a URL with a password.
        self._problem(
            path,
            f"`{path[-1]}` has to be a section; found {found(content, shown=False)}",
            f"Write {wanted} on a line of its own, and its keys below it.",
        )

    def _problem(self, path: tuple[str, ...], message: str, hint: str | None = None) -> None:
        self.problems.append(self._document.problem(path, message, hint))


def _nearest(section: Section, key: str) -> str:
    near = did_you_mean(key, section.options)
    homes = _homes(key)
    return near if near or not homes else f"; it belongs below {homes}"


def _homes(key: str) -> str:
    return " or ".join(header(section) for section in SECTIONS.values() if key in section.options)
