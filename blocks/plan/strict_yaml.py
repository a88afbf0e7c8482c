"""YAML and JSON in which no key stands twice: the later one would win, and nobody would hear of the other.

Errors name the file and the line, and never what stands there. What was read tells the lines of its fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
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


class Lines:
    """Where the fields of a document stand.

    Args:
        root: The document as it was parsed; None where nobody knows lines.
    """

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root

    def of(self, path: Sequence[str | int]) -> int | None:
        """Return the line of a field, from 1; of what should hold it, where there is none; None where none is known.

        Args:
            path: The names and numbers that lead to it.
        """
        node, line = self._root, 1
        if node is None:
            return None
        for step in path:
            key, node = _entry(node, step)
            if node is None:
                break
            line = (key or node).start_mark.line + 1
        return line


def _entry(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the key (of a mapping) and the value at a step; None where there is none."""
    if isinstance(node, yaml.MappingNode):
        # what a merge brought stands before what is written over it
        pairs = ((key, value) for key, value in reversed(node.value) if isinstance(key, yaml.ScalarNode))
        return next(((key, value) for key, value in pairs if key.value == str(step)), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None, None


def load_yaml(text: str, where: str) -> Any:
    """Read one YAML document; see `load_yaml_lines`."""
    return load_yaml_lines(text, where)[0]


def load_yaml_lines(text: str, where: str) -> tuple[Any, Lines]:
    """Read one YAML document, and where its fields stand.

    Args:
        text: The document as text.
        where: What errors call it, such as `plan ./trading.yaml`.

    Raises:
        ConfigurationError: It is not YAML, or a key stands twice in one mapping.
    """
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return (None if root is None else loader.construct_document(root)), Lines(root)
    except _Twice as exc:
        raise _twice(where, exc) from None
    except (yaml.YAMLError, ValueError) as exc:  # the latter for a date that is none
        # what it says quotes the line, in which there may be a secret
        raise ConfigurationError(f"{where} is not YAML: {_said(exc, text)}") from None
    finally:
        if loader is not None:
            loader.dispose()


def load_json(text: str, where: str) -> Any:
    """Read one JSON document; see `load_json_lines`."""
    return load_json_lines(text, where)[0]


def load_json_lines(text: str, where: str) -> tuple[Any, Lines]:
    """Read one JSON document, and where its fields stand.

    Raises:
        ConfigurationError: It is not JSON, or a key stands twice in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct), _lines(text)
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


def _lines(text: str) -> Lines:
    """Find the lines, which the reader of JSON does not report; that of YAML reads nearly all JSON."""
    try:
        return Lines(yaml.compose(text.replace("\t", " "), _Loader))
    except yaml.YAMLError:
        return Lines(None)


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


_IN_OUR_WORDS = {
    "mapping values are not allowed here": "a `name: value` stands where none can: is it indented as the "
    "lines before, and is text with a colon in quotes",
    "could not find expected ':'": "a name without a colon and a value",
    "found undefined alias": "an alias (`*name`) of an anchor (`&name`) that there is not",
}
"""What to say in the place of the reader's commonest sentences."""


def _said(error: Exception, text: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return "it holds a character or a date that is none"
    mark = error.problem_mark or error.context_mark
    said = _QUOTED.sub("'…'", " ".join(part for part in (error.context, error.problem) if part))
    if mark is not None and "\t" in _beginning(text, mark):
        said = "a tab stands in the indentation: write spaces"
    elif error.problem and error.problem.partition(" '")[0] in _IN_OUR_WORDS:
        said = _IN_OUR_WORDS[error.problem.partition(" '")[0]]
    elif error.problem and error.problem.startswith("expected <block end>, but found"):
        said = "the indentation does not fit the lines before"
    return f"{said}, line {mark.line + 1}, column {mark.column + 1}" if mark else said


def _beginning(text: str, mark: yaml.Mark) -> str:
    """Return what is blank at the beginning of a line."""
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return line[: len(line) - len(line.lstrip())]
