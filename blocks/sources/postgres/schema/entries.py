"""The text of pg_dump as entries: one for each object, with what it names.

pg_dump writes a comment with a name and a type in front of every object. A body of a function, a default or a comment
of a user may hold lines that look the same, so the text is read token by token: what is inside of a string, a dollar
quotation or a quoted name is never taken for a header. And since a name may hold anything, the comment gives only the
type of an object; which one it is, is read from its statements, in which pg_dump qualifies every name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

Name = tuple[str, ...]
"""A qualified name: schema, object, and for a column its name."""

_TOKEN = re.compile(
    r"""
      (?P<header>^--\n--\ (?:Name:\ [^\n]*;\ Type:\ (?P<type>[A-Z ]+);\ Schema:\ [^\n]*;\ Owner:[^\n]*)\n--\n)
    | (?P<skipped>--[^\n]* | /\*.*?\*/)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<mark>[.;])
    | (?P<other>[^\s\w'"$.;/-]+ | [\d\s]+ | .)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)

_BEGINNING = 1000
"""Characters in which the words that say what an entry is about are found."""

_SETTING = r"SET (default_tablespace|default_table_access_method) = (?:''|[^\W\d][\w$]*|\"(?:[^\"\n]|\"\")*\");"
_CHANGES = re.compile(rf"(?:^{_SETTING}\s*)+\Z", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One object, or one thing about it.

    Attributes:
        type: As pg_dump names it: TABLE, FK CONSTRAINT, COMMENT, ...
        text: The statements.
        settings: Statements that set what these statements depend on.
    """

    type: str
    text: str
    settings: str

    @property
    def script(self) -> bytes:
        """All there is to run for it, in any session."""
        return f"{self.settings}\n{self.text}".encode()

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """The qualified names in its statements, in order, those in short constants (`'s.t'::regclass`) among them."""
        return tuple(_names(self.text))

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The unquoted words at its beginning, in upper case."""
        found = (match["word"] for match in _TOKEN.finditer(self.text[:_BEGINNING]))
        return tuple(word.upper() for word in found if word)

    @property
    def about(self) -> str:
        """What a comment or privileges are on: TABLE, COLUMN, FUNCTION, ..."""
        words = self.words
        return words[words.index("ON") + 1] if "ON" in words[:-1] else ""

    def plain(self, *leading: str) -> str | None:
        """Return the unqualified name that follows some words, or None."""
        last: tuple[str, ...] = ()
        for match in _TOKEN.finditer(self.text[:_BEGINNING]):
            if match[0].isspace():
                continue
            name = _unquoted(match)
            if name is not None and last == leading:
                return name
            last = (*last, match["word"].upper())[-len(leading) :] if match["word"] else ()
        return None

    @property
    def subject(self) -> Name | None:
        """The object it makes or is about: the first that it names; of a column, its table."""
        return self.names[0][:2] if self.names else None


def split(text: str) -> tuple[str, list[Entry]]:
    """Split the text of pg_dump into what comes first, which sets the session up, and its entries."""
    preamble, found = pieces(text)
    return preamble, [entry for _, entry in found]


def pieces(text: str) -> tuple[str, list[tuple[str, Entry]]]:
    """Split the text of pg_dump, and keep the header of each entry: all of them joined are the text again."""
    starts = [match for match in _TOKEN.finditer(text) if match["header"]]
    edges = [*(match.start() for match in starts), len(text)]
    preamble = text[: edges[0]]
    entries, settings = [], _settings(preamble, {})
    for match, end in zip(starts, edges[1:], strict=True):
        body = text[match.end() : end]
        entries.append((match[0], Entry(match["type"], body, "\n".join(settings.values()))))
        settings = _settings(body, settings)
    return preamble, entries


def tokens(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield each word and mark of a text: unquoted words in upper case, and what it names, as the catalogue has it."""
    for match in _TOKEN.finditer(text):
        if not match["skipped"] and not match[0].isspace():
            yield (match["word"] or "").upper(), _unquoted(match)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Find the statements of a text, each with where it begins, without comments and spaces around it."""
    start: int | None = None
    nesting = _Nesting()
    for match in _TOKEN.finditer(text):
        if start is None and (match["header"] or match["skipped"] or match[0].isspace()):
            continue
        start = match.start() if start is None else start
        if nesting.is_outside(match) and match["mark"] == ";":
            yield start, text[start : match.end()]
            start = None


class _Nesting:
    """Whether tokens are within parentheses (the actions of a rule), or within the body of a function in SQL."""

    def __init__(self) -> None:
        self._parentheses, self._blocks, self._last = 0, 0, ""

    def is_outside(self, match: re.Match[str]) -> bool:
        if match["other"]:
            self._parentheses += match[0].count("(") - match[0].count(")")
        elif match["word"]:
            word = match[0].upper()
            opens = (self._last, word) == ("BEGIN", "ATOMIC") or (word == "CASE" and self._blocks > 0)
            self._blocks += opens - (word == "END" and self._blocks > 0)
            self._last = word
        return not self._parentheses and not self._blocks


def _settings(text: str, before: dict[str, str]) -> dict[str, str]:
    """Find the settings that pg_dump changes for the next entry: at the end, where no constant can end like them."""
    if (changes := _CHANGES.search(text)) is None:
        return before
    return before | {match[1]: match[0] for match in re.finditer(_SETTING, changes[0])}


def _names(text: str) -> Iterator[Name]:
    parts: list[str] = []
    dotted = False
    for match in _TOKEN.finditer(text):
        name = _unquoted(match)
        if name is not None and (dotted or not parts):
            parts, dotted = [*parts, name], False
            continue
        if match["mark"] == "." and parts and not dotted:
            dotted = True
            continue
        if len(parts) > 1:
            yield tuple(parts)
        parts, dotted = ([name] if name is not None else []), False
        if match["text"] and (inside := _constant(match["text"])):
            yield inside
    if len(parts) > 1:
        yield tuple(parts)


def _unquoted(match: re.Match[str]) -> str | None:
    """Return the name that a token is, as the catalogue has it."""
    if match["quoted"]:
        return match["quoted"][1:-1].replace('""', '"')
    return match["word"]


def _constant(text: str) -> Name | None:
    """Return the name that a constant is, where it is nothing but a qualified name."""
    if not text.startswith("'"):
        return None
    inside = text[1:-1].replace("''", "'")
    tokens = list(_TOKEN.finditer(inside))
    names = [_unquoted(match) for match in tokens]
    match names:
        case [str(schema), None, str(name)] if tokens[1]["mark"] == ".":
            return schema, name
    return None
