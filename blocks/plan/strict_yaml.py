"""YAML and JSON in which no key stands twice: the later one would win, and nobody would hear of the other.

Errors name the file and the line, and never what stands there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml

from blocks.errors import ConfigurationError

_MERGE = "tag:yaml.org,2002:merge"
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")
"""What is quoted from the document; names of what was expected are written as <...>."""
_HINT = "Write each key once; the later one would replace the other."


class _Twice(yaml.YAMLError):
    """A key stands twice in one mapping.

    Attributes:
        key: As it was written.
        line: Where it stands again, from 1.
        first: Where it stands first.
    """

    def __init__(self, key: str, line: int, first: int) -> None:
        super().__init__(key)
        self.key, self.line, self.first = key, line, first


class _Loader(yaml.SafeLoader):
    """Looks at mappings before merge keys are resolved: what a merge brings may be written over."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            # other keys than scalars are refused where they are hashed
            if key.tag == _MERGE or not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            value = self.construct_object(key)
            if value in lines:
                raise _Twice(str(key.value), line, lines[value])
            lines[value] = line
        return node


def load_yaml(text: str, where: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document as text.
        where: What errors call it, such as `plan ./trading.yaml`.

    Raises:
        ConfigurationError: It is not YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  a safe loader
    except _Twice as exc:
        raise _twice(where, exc) from None
    except (yaml.YAMLError, ValueError) as exc:  # the latter for a date that is none
        # what it says quotes the line, in which there may be a secret
        raise ConfigurationError(f"{where} is not YAML: {_said(exc)}") from None


def load_json(text: str, where: str) -> Any:
    """Read one JSON document.

    Raises:
        ConfigurationError: It is not JSON, or a key stands twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except _Twice as exc:
        raise _twice(where, _located(text, exc)) from None
    except json.JSONDecodeError as exc:
        raise ConfigurationError(f"{where} is not JSON: {exc.msg}, line {exc.lineno}, column {exc.colno}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key, 0, 0)
        found[key] = value
    return found


def _located(text: str, found: _Twice) -> _Twice:
    """Find the lines, which the reader of JSON does not report; that of YAML reads nearly all JSON."""
    try:
        yaml.compose(text.replace("\t", " "), _Loader)
    except _Twice as exc:
        return exc
    except yaml.YAMLError:
        return found
    return found


def _twice(where: str, found: _Twice) -> ConfigurationError:
    place = f", line {found.line}" if found.line else ""
    first = f", and first in line {found.first}" if found.line else ""
    return ConfigurationError(f"{where}{place}: the key {found.key!r} stands there twice{first}", hint=_HINT)


def _said(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return "it holds a character or a date that is none"
    said = _QUOTED.sub("'…'", " ".join(part for part in (error.context, error.problem) if part))
    mark = error.problem_mark or error.context_mark
    return f"{said}, line {mark.line + 1}, column {mark.column + 1}" if mark else said
