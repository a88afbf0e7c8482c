"""Passwords in the text that names a place: found, left out when it is shown, refused where it would be kept.

A URL or a DSN is kept with a plan, with the parameters of a run and in the history of a shell, and is shown in all of
them. So it never holds a password: it names the variable of the environment that does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from blocks.errors import ConfigurationError

NONE = "none"
"""The word for a place that asks for no password, where the name of a variable could stand."""

HINT = (
    "Put it into an environment variable and name that: `password_env` of the source in the plan, "
    "`--to-password-env` beside `--to`. PostgreSQL also reads ~/.pgpass."
)


def _any_case(words: str) -> str:
    """Return a pattern for words in any case, without flags: the pattern is also read where there are none."""
    return re.sub(r"(?<!\\)[a-z]", lambda found: f"[{found[0].upper()}{found[0]}]", words)


# a known scheme is known with too few slashes, too
_SCHEME = rf"(?:{_any_case('(?:postgres(?:ql)?|rediss?(?:[+]sentinel|[+]cluster)?)')}:/*|[A-Za-z][A-Za-z0-9+.-]*://)"
_USER = r"[^@:/?#]*"
_PORT = r"[0-9]*(?:[,/?#]|$)"
_ADDRESS = r"\["
_CREDENTIALS = (
    # as libpq reads it: up to the last @ before a slash
    rf"({_SCHEME}{_USER}?)(?::|%3[Aa])[^/]+@",
    rf"({_SCHEME}{_USER}?)(?::|%3[Aa])[^/?#]+%40",
    # a password with a slash in it that was not written as %2F
    rf"({_SCHEME}{_USER}):[^?#]+@",
    rf"({_SCHEME}(?!{_ADDRESS}){_USER}):(?!{_PORT})[^@]+@",
    # the scheme was forgotten
    r"^(\s*(?://)?[^\s/@:=?'\"]*):[^\s/@]+@(?=[A-Za-z0-9\[])",
)
_KEYWORD = _any_case(
    r"(?!\w*(?:_env|file|password_encryption)\s*=)"
    r"(?:\w*(?:password|passwd|passphrase|secret|token)\w*|pwd|pass|pw|(?:\w*cli_)?auth|scram_\w*_key|(?:api|access)_?key)"
)
_BEFORE = r"(?:^|(?<=[\s&?;'\"]))"
_NOT_EMPTY = r"(?!''(?:[\s&]|$))"
_SETTING = rf"{_BEFORE}({_KEYWORD}\s*=\s*){_NOT_EMPTY}[^\s&]"
PATTERN = "|".join(f"(?:{one})" for one in (*_CREDENTIALS, _SETTING))
"""Matches, somewhere in it, a text that holds a password; for the schema of a run's parameters."""

_APART = re.compile(r"[\s'\"]+")
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\}|\([^)]*\))")
_IN_COMMANDS = (*_CREDENTIALS[:4], rf"(?:^|[?&])(?:{_any_case('(?:pg|ssl)?password')})={_NOT_EMPTY}[^\s&]")
_QUERY = re.compile(r"[?&][^=&]*=([^&#]*)")
_IN_URL = re.compile(rf"{_BEFORE}({_KEYWORD}\s*=\s*){_NOT_EMPTY}('(?:[^'\\]|\\.)*'?|[^\s&]+)")
_IN_SETTINGS = re.compile(rf"{_BEFORE}({_KEYWORD}\s*=\s*){_NOT_EMPTY}('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.)+)")

_WORD = re.compile(r"[^\s'\"]+")
_SAID = re.compile(rf"({_BEFORE}{_KEYWORD}['\"]?\s*=\s*['\"]?|['\"]{_KEYWORD}['\"]\s*:\s*['\"])(?!\*\*\*)[^\s'\",;&]+")
_SIGNATURE = re.compile(
    r"(?i)((?<![\w-])(?:sig|accountkey|sharedaccess(?:key|signature)|x-(?:amz|goog)-(?:signature|security-token))\s*=)"
    r"(?!\*\*\*)[^\s&;,'\"]+"
)
_HEADER = re.compile(
    r"(?i)(authorization['\"]?\s*[:=]\s*b?['\"]?(?:basic|bearer|digest|negotiate|sharedkey|token)\s+)[^\s,;'\"]+"
)
_SHORTEST_SECRET = 4


def has_password(text: str) -> bool:
    """Return whether a place holds a password, in any spelling of a URL or of settings; `password_env=NAME` is none."""
    if re.search(PATTERN, text):
        return True
    decoded = unquote(text)
    return decoded != text and (bool(re.search(_SETTING, decoded)) or any(map(has_password, _inner(text))))


def without_password(text: str) -> str:
    """Return a place as people may see it."""
    hidden = text
    for pattern in _CREDENTIALS:
        hidden = re.sub(pattern, r"\1@", hidden)
    hidden = (_IN_URL if "://" in hidden else _IN_SETTINGS).sub(r"\1***", hidden)
    # what is left is spelled so oddly that no one knows where it ends
    return "***" if has_password(hidden.replace("***", "''")) else hidden


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Return what a program said as people may see it.

    Args:
        text: Any text.
        secrets: Values that it must not show. Those of less than four characters are left: they are in any text.
    """
    for secret in sorted({one for one in secrets if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "***")
    hidden = _WORD.sub(lambda word: without_password(word[0]), text)
    return _SAID.sub(r"\1***", hidden)


def without_settings(text: str) -> str:
    """Return a sentence without the values of settings such as `password=...`, of signatures and of headers."""
    hidden = _SAID.sub(r"\1***", _IN_SETTINGS.sub(r"\1***", text))
    return _HEADER.sub(r"\1***", _SIGNATURE.sub(r"\1***", hidden))


def refuse_password(text: str, where: str) -> None:
    """Refuse a place that holds a password, without repeating any of it.

    Args:
        text: As it was given.
        where: What it is, for the error.

    Raises:
        ConfigurationError: It does.
    """
    if has_password(text):
        raise ConfigurationError(f"there is a password in {where}, where it would be kept and shown", hint=HINT)


def command_has_password(words: Iterable[str]) -> bool:
    """Return whether a command names a place with a password; one that a shell takes from a variable is none."""
    pieces = [piece for word in words for piece in _APART.split(_VARIABLE.sub("", word))]
    return any(re.search(pattern, piece) for piece in pieces for pattern in _IN_COMMANDS)


def _inner(text: str) -> Iterator[str]:
    """Yield the places within a place: libpq takes a whole URL as the name of a database."""
    for value in _QUERY.findall(text):
        if "://" in (decoded := unquote(value)):
            yield decoded
