"""What errors of the driver and the server say, and what a person can do about them."""

from __future__ import annotations

import pytest
from adbc_driver_manager import AdbcStatusCode, Error

from blocks.errors import SourceUnavailable, UnsupportedState
from blocks.sources.postgres.connect import said_by, translated
from blocks.sources.postgres.hints import hint_for, refusal_hint


def driver_error(text: str, sqlstate: str | None = None) -> Error:
    return Error(text, status_code=AdbcStatusCode.IO, sqlstate=sqlstate)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "INVALID_DATA: [libpq] Failed to execute query: could not begin COPY: ERROR:  division by zero\n\n"
            "Query was: COPY (SELECT 'secret') TO STDOUT (FORMAT binary). SQLSTATE: 22012",
            "division by zero",
        ),
        (
            "IO: [libpq] Execution error [PGRES_FATAL_ERROR]: FATAL:  terminating connection\n . SQLSTATE: 57P01",
            "terminating connection",
        ),
        ("INTERNAL: [libpq] Fetch failed [PGRES_FATAL_ERROR]: FEHLER:  Division durch Null\n", "Division durch Null"),
        (
            "IO: [libpq] Failed to connect: refused\n\tIs the server up?\n",
            "Failed to connect: refused \tIs the server up?",
        ),
        ("anything else", "anything else"),
    ],
)
def test_what_the_server_said_is_taken_out_of_the_drivers_words(text: str, said: str) -> None:
    assert said_by(driver_error(text)) == said


@pytest.mark.parametrize(
    ("state", "said", "hint"),
    [
        ("", "FATAL:  sorry, too many clients already", "max_connections"),
        ("", 'FATAL:  too many connections for role "x"', "max_connections"),
        ("", "remaining connection slots are reserved for roles", "max_connections"),
        ("53300", "anything", "max_connections"),
        ("", "fe_sendauth: no password supplied", "password"),
        ("", "Connection refused", "server runs"),
        ("42883", "function f() does not exist", "search_path"),
        ("42P01", "relation t does not exist", "search_path"),
        ("XX001", "invalid page in block 7", "damaged"),
        ("53200", "out of shared memory", "max_locks_per_transaction"),
        ("P0001", "not now", "Code of the database"),
        ("22012", "division by zero", "value"),
        ("57P01", "terminating connection", "ended the session"),
        ("57014", "canceling statement", "ended the statement"),
    ],
)
def test_hints_fit_errors(state: str, said: str, hint: str) -> None:
    assert hint in hint_for(state, said)


@pytest.mark.parametrize(("state", "hint"), [("22021", "SQL_ASCII"), ("22P05", "counterpart in UTF8")])
def test_text_that_cannot_be_read_is_told_apart(state: str, hint: str) -> None:
    with pytest.raises(UnsupportedState) as met, translated("here", "cannot read"):
        raise driver_error("x: ERROR:  bad byte", state)
    assert met.value.message == "cannot read here: bad byte"
    assert hint in (met.value.hint or "")
    with pytest.raises(SourceUnavailable, match="gone"), translated("here", "cannot read"):
        raise driver_error("gone", "57P01")


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("42501", "own"),
        ("42883", "search_path"),
        ("42704", "not there"),
        ("42P07", "there already"),
        ("42601", "definition"),
        ("23503", "foreign key"),
        ("23505", "same key"),
        ("23514", "constraint"),
        ("P0001", "Code of the database"),
        ("53200", "max_locks_per_transaction"),
        ("54000", "limit"),
        ("0A000", "extension"),
        ("XX001", "damaged"),
    ],
)
def test_hints_of_refusals_fit_what_the_server_refused(state: str, hint: str) -> None:
    assert hint in str(refusal_hint(state))


@pytest.mark.parametrize("state", ["", "08006", "57P01", "57014"])
def test_a_server_that_went_away_has_refused_nothing(state: str) -> None:
    assert refusal_hint(state) is None
