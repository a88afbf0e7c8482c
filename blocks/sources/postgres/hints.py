"""What a person can do about an error of the server, by its SQLSTATE: the whole of it first, then its class."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SERVER_RUNS = "Check that the server runs and that `dsn` is right."
_MORE_LOCKS = (
    "The server's table of locks or its memory is too small: raise max_locks_per_transaction and restart it, or free"
    " memory."
)
_DAMAGED = "The server reports damaged data, or a fault of its own: look at its log, and check it with pg_amcheck."
_OWN_CODE = "Code of the database itself (a function, a trigger, an operator) raised this: look at what it names."
_NO_ROOM = "The server has no room left."
_NOT_THERE = "What is named is not there: it was dropped or renamed meanwhile, or code relies on a `search_path`."

NOT_OF_AN_OBJECT = ("08", "25", "40", "53", "55P03", "57", "XX")
"""States that say something of the server or of other sessions: leaving an object out is no answer to them."""

_ANYWHERE = {
    "28P01": "Check the password: `password_env` in the plan, PGPASSWORD, or ~/.pgpass. Another server or user that "
    "`--to` names is only sent the one of `--to-password-env`, or of ~/.pgpass.",
    "28": "Check the user and the server's pg_hba.conf.",
    "3D000": "Check the database in `dsn`.",
    "53300": "The server has no connection left: raise max_connections, or back up at a quieter time.",
    "53100": _NO_ROOM,
    "53200": _MORE_LOCKS,
    "53": "The server is short of something: its log says more.",
    "55P03": "Another session holds a lock: try again later.",
    "57P03": "The server is starting up or shutting down: try again later.",
    "57P01": "The server, or a person, ended the session: try again.",
    "57014": "A person, or a limit of time on the server, ended the statement: try again.",
    "57P": "The server ended the session: try again.",
    "08": _SERVER_RUNS,
    "P0": _OWN_CODE,
    "38": _OWN_CODE,
    "39": _OWN_CODE,
    "XX": _DAMAGED,
    "": _SERVER_RUNS,
}

_READING = _ANYWHERE | {
    "42501": "Grant the role pg_read_all_data (and BYPASSRLS where tables have row level security).",
    "42": _NOT_THERE,
    "3F": _NOT_THERE,
    "22": "A stored value, or one that is computed while reading, is refused by the server itself.",
    "40": "Another session stood in the way, or the standby moved on: try again.",
    "58": "The server cannot read one of its files: look at its log.",
    "0A": "The server cannot do this.",
}

_WRITING = {code: hint for code, hint in _ANYWHERE.items() if code[:2] not in ("", "08", "57", "3D")} | {
    "42501": "The role needs to own what it restores, and all roles that the backup names have to exist.",
    "42883": "A function or an operator that a definition calls is not there: one that relies on a `search_path` is not"
    " found while definitions are made. Make the function qualify what it calls, and back up again.",
    "42P01": _NOT_THERE,
    "42703": _NOT_THERE,
    "42704": "What a definition names is not there: a type, a role, an extension. Make it first.",
    "3F000": "A schema that a definition names is not there. Make it first.",
    "42710": "An object of that name is there already. Drop or rename it, or restore to a missing database with --to.",
    "42723": "An object of that name is there already. Drop or rename it, or restore to a missing database with --to.",
    "42P06": "An object of that name is there already. Drop or rename it, or restore to a missing database with --to.",
    "42P07": "An object of that name is there already. Drop or rename it, or restore to a missing database with --to.",
    "42": "The server refuses a definition of the backup: what the message names has to be mended.",
    "23503": "A foreign key points to nothing: restore the table that it refers to, too.",
    "23505": "A restored row and a live one have the same key: restore the table exactly, or choose rows with --key.",
    "23": "A constraint does not hold for the restored rows together with the live ones.",
    "22": "A value does not fit the live column. Restore to an empty database with --to.",
    "25006": "The server, the database or the role lets nothing be written.",
    "21": _OWN_CODE,
    "2F": _OWN_CODE,
    "28": "Check the user and the password.",
    "58P01": "The server lacks a file: an extension of the backup is not installed there.",
    "58": "The server cannot read or write one of its files: look at its log.",
    "0A": "The server cannot do this: a feature or an extension that the backup needs is missing there.",
    "2B": "Other objects depend on what is replaced.",
    "40": "Another session stood in the way. Try again.",
    "54": "A limit of the server is exceeded by what is restored.",
    "55": "An object is in use by another session. Try again later.",
}
"""States without a hint here are those of a server that went away."""

_NO_CONNECTION_LEFT = re.compile("too many clients|too many connections|remaining connection slots")


_SAID = (
    ("out of shared memory", "53200"),
    ("permission denied", "42501"),
    ("lock timeout", "55P03"),
    ("statement timeout", "57014"),
    ("conflict with recovery", "40001"),
    ("could not read block", "XX001"),
    ("No space left", "53100"),
)
"""What is in the words of the server, and the state that goes with it."""


def hint_for(state: str, said: str) -> str:
    """Say what a person can do about an error while state is read, or a connection made.

    Args:
        state: SQLSTATE; empty where the server did not give one.
        said: What the server said.
    """
    if "row-level security" in said:
        return "Give the role BYPASSRLS: a backup must see all rows."
    # a connection that fails before the server has answered carries no state
    if not state and "password" in said:
        return _READING["28P01"]
    if not state and _NO_CONNECTION_LEFT.search(said):
        return _READING["53300"]
    # a program that ends with an error, as pg_dump does, says no state, and the server its own words
    state = state or next((known for words, known in _SAID if words in said), "")
    return _found(_READING, state) or "The server refused that: its log may say more."


_LACKING = ("0A", "25006", "42501", "53", "55006", "55P03", "57", "58")
"""States of a server that cannot or may not do something, whatever is asked for."""


def lacks_something(state: str) -> bool:
    """Whether an error says what a server lacks (room, a right, an extension), and nothing of what it was given."""
    return state.startswith(_LACKING)


def refusal_hint(state: str) -> str | None:
    """Say what a person can do about a refusal while state is written; None where the server went away.

    Args:
        state: SQLSTATE; empty where the server did not give one.
    """
    return _found(_WRITING, state)


def _found(hints: Mapping[str, str], state: str) -> str | None:
    keys = (state, state[:3], state[:2]) if state else ("",)
    return next((hints[key] for key in keys if key in hints), None)
