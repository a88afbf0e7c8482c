"""What is wrong with the fields of a plan or a suite, in our words: line, field, what is allowed, what was meant.

The only place that reads pydantic's errors of what people write. What stands in a field is never repeated, since it may
be a secret; names of fields and types are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from blocks.errors import ConfigurationError

Path = tuple[str | int, ...]
LineOf = Callable[[Path], int | None]
"""Returns the line of a field, or of what holds it where it is missing; None where nothing has lines."""

_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,62}$": "write lower-case letters, digits, dots, dashes and underscores, at most 63 in "
    "all, and a letter or a digit first",
    "^[a-z0-9_]{1,63}$": "write lower-case letters, digits and underscores, at most 63",
    r"^[^/]+/.+$": "write source/collection, such as ledger/orders",
    r"^[a-z0-9-]+/[a-z0-9-]+$": "write the type and the name of a block, such as slack-webhook/ops",
}
_WANTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list, such as [a, b]",
    "tuple": "a list, such as [a, b]",
    "set": "a list, such as [a, b]",
    "dict": "fields and their values, each as `name: value`",
    "mapping": "fields and their values, each as `name: value`",
    "model": "fields and their values, each as `name: value`",
    "path": "a path",
    "url": "a URL",
    "date": "a date, such as 2026-01-02",
    "datetime": "a date and a time, such as 2026-01-02T03:04:05Z",
    "timezone": "a time with its zone, such as 2026-01-02T03:04:05Z or 2026-01-02T03:04:05+01:00",
    "time": "a span of time with its unit, such as 15m, 12h or 90d",
}
"""What to write, by how pydantic's names of errors begin."""
_BOUNDS = {
    "greater_than_equal": ("ge", "write {} or more"),
    "greater_than": ("gt", "write more than {}"),
    "less_than_equal": ("le", "write {} or less"),
    "less_than": ("lt", "write less than {}"),
    "string_too_short": ("min_length", "write at least {} characters"),
    "string_too_long": ("max_length", "write at most {} characters"),
    "too_short": ("min_length", "name at least {}"),
    "too_long": ("max_length", "name at most {}"),
}


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        path: The field, by the names and numbers that lead to it.
        sentence: What is wrong with it, and what is allowed.
        line: Where it is, from 1; None where that is not known.
    """

    path: Path
    sentence: str
    line: int | None = None

    def __str__(self) -> str:
        field = ".".join(map(str, self.path))
        # what we raise ourselves often names the field already
        return self.sentence if not field or self.sentence.startswith(f"{field}.") else f"{field}: {self.sentence}"


def wrong_at(path: Path, sentence: str) -> ValidationError:
    """Make an error that a validator raises for something inside of what it is given.

    Args:
        path: From what the validator is given to what is wrong.
        sentence: What is wrong.
    """
    return ValidationError.from_exception_data(
        "field", [InitErrorDetails(type=_custom(sentence), loc=path, input=None)], hide_input=True
    )


def told(value: Any, read: Callable[[Any], Any]) -> Any:
    """Validate, as a wrap validator; what we raise ourselves becomes one mistake among others, with its field."""
    try:
        return read(value)
    except ConfigurationError as exc:
        raise _custom(f"{exc.message}. {exc.hint}" if exc.hint else exc.message) from None


def _custom(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("lastgood", "{sentence}", {"sentence": sentence})


def mistakes(
    model: type[BaseModel], raw: Any, error: ValidationError | None, line_of: LineOf = lambda _: None
) -> list[Mistake]:
    """Return all that is wrong, in the order of lines.

    Args:
        model: What `raw` should be.
        raw: As it was read.
        error: What validation found; None where it found nothing. Unknown fields are found either way.
        line_of: Tells lines.
    """
    found: dict[tuple[Path, str], Mistake] = {}
    untyped: set[Path] = set()
    for one in error.errors(include_url=False) if error is not None else ():
        path = _written_path(model, raw, one["loc"])
        if one["type"].startswith("union_tag"):
            untyped.add(path)
        if one["type"] == "extra_forbidden":
            continue  # as all others that are unknown
        sentence = _sentence(model, raw, one, path)
        found.setdefault((path, sentence), Mistake(path, sentence, line_of(path)))
    for path, sentence in _unknown(model, model, raw, (), untyped):
        found[path, sentence] = Mistake(path, sentence, line_of(path))
    return sorted(found.values(), key=lambda mistake: mistake.line or 0)


def described(where: str, wrong: Sequence[Mistake]) -> str:
    """Say all mistakes, one a line where there are several.

    Args:
        where: What they are in, such as `plan ./trading.yaml`.
        wrong: The mistakes.
    """
    if len(wrong) == 1:
        line = f", line {wrong[0].line}" if wrong[0].line else ""
        return f"{where}{line}: {wrong[0]}"
    lines = [f"line {one.line}: {one}" if one.line else str(one) for one in wrong]
    return "\n".join([f"{where}: {len(wrong)} mistakes", *lines])


def near(word: object, known: Sequence[str]) -> str:
    """Ask whether a known word was meant, for the end of a sentence; nothing where none is near."""
    if not isinstance(word, str):
        return ""
    by_folded = {one.casefold(): one for one in known}
    found = get_close_matches(word.casefold(), by_folded, 1)
    return f"; did you mean {by_folded[found[0]]}?" if found else ""


def _sentence(model: type[BaseModel], raw: Any, error: ErrorDetails, path: Path) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "lastgood":
        return str(context["sentence"])
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"it is missing{_about(model, raw, path)}"
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(context["expected"])) or [str(context["expected"])]
        return f"write {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}{near(given, allowed)}"
    if kind == "union_tag_invalid":
        allowed = re.findall(r"'([^']*)'", str(context["expected_tags"]))
        tag = str(context["tag"])
        meant = near(tag, allowed)
        if not meant and path[:1] == ("sources",):
            meant = "; if a package adds it, that is to be installed here"
        return f"there is no type {tag!r}; it is one of {', '.join(allowed)}{meant}"
    if kind == "union_tag_not_found":
        if not isinstance(given, Mapping):
            return f"write {_WANTED['model']}"
        tags = [str(_tag(one)) for one in _models(_kind_at(model, raw, path))]
        return f"its `type` is missing; it is one of {', '.join(tags)}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(context["pattern"]), f"it has to match {context['pattern']}")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return words.format(f"{context[name]:g}")
    wanted = _WANTED.get(kind.partition("_")[0])
    if wanted is None:
        return "this cannot stand there"
    return f"{_instead(given, wanted)}write {wanted}"


def _instead(given: object, wanted: str) -> str:
    """Say what YAML made of what stands there, where that may surprise."""
    if given is None:
        return "nothing stands there; "
    if wanted == "text" and isinstance(given, bool | int | float):
        what = "true or false" if isinstance(given, bool) else "a number"
        return f"YAML takes what stands there for {what}; put it into quotes, or "
    return ""


def _about(model: type[BaseModel], raw: Any, path: Path) -> str:
    """Say what a missing field is for."""
    holder = _chosen(_kind_at(model, raw, path[:-1]), _at(raw, path[:-1]))
    field = holder.model_fields.get(str(path[-1])) if holder is not None and path else None
    return f" ({field.description.rstrip('.')})" if field is not None and field.description else ""


def _written_path(model: type[BaseModel], raw: Any, loc: Path) -> Path:
    """Return where something is as it was written: unions add the type that they took to pydantic's path."""
    path: list[str | int] = []
    kind: Any = model
    for step in loc:
        if step == "[key]":  # of a mapping, which is not text
            break
        members = _models(kind)
        if len(members) > 1 or (members and step not in members[0].model_fields):
            tagged = [one for one in members if step == _tag(one)]
            if tagged:
                kind = tagged[0]
                continue
        kind = _inner(kind, step, _at(raw, path))
        path.append(step)
    return tuple(path)


def _kind_at(model: type[BaseModel], raw: Any, path: Path) -> Any:
    """Return the type of what is at a path."""
    kind: Any = model
    for number, step in enumerate(path):
        kind = _inner(kind, step, _at(raw, path[:number]))
    return kind


def _at(raw: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _inner(kind: Any, step: str | int, raw: Any) -> Any:
    """Return the type of what is at a step inside of something of a type; None where that is not known."""
    chosen = _chosen(kind, raw)
    if chosen is not None:
        field = chosen.model_fields.get(str(step))
        return field.annotation if field is not None else None
    for one in _plain(kind):
        if get_origin(one) in (dict, Mapping):
            return get_args(one)[1]
        if get_origin(one) in (list, tuple, set):
            return get_args(one)[0]
    return None


def _plain(kind: Any) -> Iterator[Any]:
    """Yield the types of a union, without what annotates them."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _plain(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for one in get_args(kind):
            yield from _plain(one)
    else:
        yield kind


def _models(kind: Any) -> list[type[BaseModel]]:
    return [one for one in _plain(kind) if isinstance(one, type) and issubclass(one, BaseModel)]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def _chosen(kind: Any, raw: Any) -> type[BaseModel] | None:
    """Return the model of a type; of several the one that `type` names, or that has most of the fields."""
    members = _models(kind)
    if len(members) < 2:
        return members[0] if members else None
    if not isinstance(raw, Mapping):
        return None
    if "type" in raw:
        return next((one for one in members if _tag(one) == raw["type"]), None)
    return max(members, key=lambda one: len(raw.keys() & one.model_fields.keys()))


def _unknown(root: type[BaseModel], kind: Any, raw: Any, path: Path, untyped: set[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the fields that there are not, wherever they stand."""
    if path in untyped:
        return
    model = _chosen(kind, raw)
    if model is not None and isinstance(raw, Mapping):
        known = list(model.model_fields)
        for name, value in raw.items():
            if name in known:
                yield from _unknown(root, model.model_fields[name].annotation, value, (*path, name), untyped)
            else:
                yield (*path, str(name)), _no_field(root, model, name, value)
        return
    for one in _plain(kind):
        if get_origin(one) in (dict, Mapping) and isinstance(raw, Mapping):
            for name, value in raw.items():
                yield from _unknown(root, get_args(one)[1], value, (*path, name), untyped)
        elif get_origin(one) in (list, tuple) and isinstance(raw, list):
            for number, value in enumerate(raw):
                yield from _unknown(root, get_args(one)[0], value, (*path, number), untyped)


def _no_field(root: type[BaseModel], model: type[BaseModel], name: object, value: object) -> str:
    known = list(model.model_fields)
    meant = near(name, known)
    if not meant and model is not root and name in root.model_fields:
        meant = f"; `{name}` stands at the beginning of a line: this one may be indented too far"
    if not meant and model is root and isinstance(value, Mapping) and "type" in value and "sources" in known:
        meant = "; sources stand beneath `sources:`, indented"
    return f"there is no such field{meant}; fields here: {', '.join(known)}"
