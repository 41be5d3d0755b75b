"""Who may do what under the template, for given parameters: its conditions and references worked out as AWS does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

__all__ = ["PREFIX", "Template"]

PREFIX = re.compile(r"arn:aws:[a-z0-9-]+:(?:region|):(?:account|aws):")
"""How ARNs begin here, in this account and in AWS's own."""

_PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "region", "AWS::AccountId": "account", "AWS::StackName": "stack"}
_NOTHING = object()


class Template:
    """A template with its parameters filled in.

    Args:
        path: The template.
        given: Parameters by name; the others have their defaults.
    """

    def __init__(self, path: Path, given: Mapping[str, str]) -> None:
        content, problems = decode(str(path))
        assert content is not None, problems
        assert not problems, problems
        self.content: dict[str, Any] = content
        defaults = {name: str(about.get("Default", "")) for name, about in self.content["Parameters"].items()}
        assert given.keys() <= defaults.keys()
        self._values = {**_PSEUDO, **defaults, **given}

    def resources(self, kind: str) -> dict[str, Any]:
        """The properties of all resources of a type that are made."""
        return {
            name: self.resolved(about.get("Properties", {}))
            for name, about in self.content["Resources"].items()
            if about["Type"] == kind and self._holds(about.get("Condition"))
        }

    def rights(self) -> dict[str, set[tuple[str, str]]]:
        """Each role's actions with the resource that they are allowed on; a managed policy of AWS's is an action."""
        policies = self.resources("AWS::IAM::ManagedPolicy")
        found: dict[str, set[tuple[str, str]]] = {}
        for role, about in self.resources("AWS::IAM::Role").items():
            documents = [policy["PolicyDocument"] for policy in about.get("Policies", [])]
            found[role] = set()
            for arn in about.get("ManagedPolicyArns", []):
                if arn.startswith("arn:"):
                    found[role].add((PREFIX.sub("", arn), "*"))
                else:
                    documents.append(policies[arn]["PolicyDocument"])
            found[role].update(*map(_allowed, documents))
        for about in self.resources("AWS::IAM::RolePolicy").values():
            found[about["RoleName"]] |= _allowed(about["PolicyDocument"])
        return found

    def resolved(self, node: Any) -> Any:
        """Replace intrinsic functions by what they come to; what is not known is named as the template names it."""
        if isinstance(node, list):
            return [value for part in node if (value := self.resolved(part)) is not _NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, value),) = node.items()
            if name == "Ref":
                return _NOTHING if value == "AWS::NoValue" else self._values.get(value, value)
            if name == "Fn::GetAtt":
                return value if isinstance(value, str) else ".".join(value)
            if name == "Fn::Sub":
                return re.sub(r"\$\{([^}]+)\}", lambda match: self._values.get(match[1], match[1]), value)
            if name == "Fn::If":
                return self.resolved(value[1] if self._holds(value[0]) else value[2])
            assert not name.startswith("Fn::"), name
        return {key: value for key, part in node.items() if (value := self.resolved(part)) is not _NOTHING}

    def _holds(self, condition: Any) -> bool:
        if condition is None:
            return True
        if isinstance(condition, str):
            return self._holds(self.content["Conditions"][condition])
        ((name, value),) = condition.items()
        match name:
            case "Condition":
                return self._holds(value)
            case "Fn::Not":
                return not self._holds(value[0])
            case "Fn::Or":
                return any(map(self._holds, value))
            case "Fn::Equals":
                left, right = (self._text(side) for side in value)
                return left == right
        raise AssertionError(name)

    def _text(self, node: Any) -> str:
        if isinstance(node, dict) and "Fn::Join" in node:
            separator, parts = node["Fn::Join"]
            return str(self.resolved(parts)).replace(",", separator)
        return str(self.resolved(node))


def _allowed(document: Mapping[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        assert statement.keys() <= {"Effect", "Action", "Resource", "Condition"}
        for action in _listed(statement["Action"]):
            found |= {(action, PREFIX.sub("", resource)) for resource in _listed(statement["Resource"])}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
