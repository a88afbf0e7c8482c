"""Commands as a person hands them to `redis-cli`: a line each, with every byte that is no plain letter escaped."""

from __future__ import annotations

from blocks.sources.redis.net.wire import Word

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+")
_ESCAPED = {ord('"'): '\\"', ord("\\"): "\\\\", ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def cli_line(*words: Word) -> str:
    """Write a command as a line for the standard input of `redis-cli`."""
    return " ".join(_quoted(word if isinstance(word, bytes) else str(word).encode()) for word in words)


def _quoted(word: bytes) -> str:
    if word and _PLAIN.issuperset(word):
        return word.decode()
    escaped = (_ESCAPED.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in word)
    return f'"{"".join(escaped)}"'
