"""Lines of JSON that any reader takes, and lines without secrets."""

from __future__ import annotations

import json
import logging
import threading
from urllib.parse import quote, quote_plus

import pytest

from blocks.host import log_lines
from blocks.host.log_lines import LoggedRun, json_line, keep_out, logged_as, of_record, told_of, without_secrets

SECRET = 'hunter2 & Söhne/%\n"x"'
WORD = "sw0rdfish"


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DESK_PASSWORD", SECRET)
    keep_out({"DESK_PASSWORD"})
    return SECRET


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        repr(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="&"),
        quote(SECRET).replace("%C3%B6", "%c3%b6").replace("%2F", "%2f"),
    ],
)
@pytest.mark.usefixtures("secret")
def test_the_value_of_a_variable_is_left_out_as_anybody_writes_it(written: str) -> None:
    assert without_secrets(f"it said <{written}> twice: {written}") == "it said <***> twice: ***"


@pytest.mark.parametrize(
    "said",
    [
        f"{{'password': '{WORD}'}}",
        f'{{"secret_access_key": "{WORD}"}}',
        f"https://a.blob.core.windows.net/c?sv=1&sig={WORD}%2Fx&se=2",
        f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={WORD}&X-Amz-Signature={WORD}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={WORD}==;EndpointSuffix=x",
        f"Authorization: Bearer {WORD}",
        f"{{'authorization': b'Basic {WORD}=='}}",
        f"redis://:{WORD}@h:1 and postgresql://u:{WORD}@h/x?password={WORD}",
        f"one\npassword={WORD}\ntwo",
    ],
)
def test_what_stands_as_a_secret_is_left_out_whoever_says_it(said: str) -> None:
    assert WORD not in without_secrets(said)


@pytest.mark.parametrize(
    "said",
    [
        "authorization: it was refused",
        "design=new signature=old",
        "token: none",
        "10:30 a=b s3://bucket/key?x=1",
        "the hook sh: done",
        "password_env=NAME",
    ],
)
def test_other_words_stay(said: str) -> None:
    assert without_secrets(said) == said


@pytest.mark.parametrize(
    ("level", "word"), [(5, "debug"), (20, "info"), (25, "info"), (30, "warning"), (35, "warning"), (50, "critical")]
)
def test_a_level_has_one_of_five_words(level: int, word: str) -> None:
    assert json.loads(json_line(level, "x"))["level"] == word


def test_a_line_is_text_for_strict_readers_too() -> None:
    line = json_line(20, "file a\udcff\u2028\n\x1b😀", None, error={"message": "a\udcff", "more": ["\ud800"]})
    assert line.isascii()
    assert "\n" not in line
    told = json.loads(line)
    # half of a pair cannot be written as UTF-8
    assert json.dumps(told, ensure_ascii=False).encode()
    assert told["message"] == "file a\\udcff\u2028\n\x1b😀"
    assert told["error"] == {"message": "a\\udcff", "more": ["\\ud800"]}


def test_a_record_that_is_given_what_does_not_fit_is_a_line_all_the_same() -> None:
    record = logging.LogRecord("theirs", logging.WARNING, "f.py", 1, "%d rows of %s", ("many",), None)
    assert json.loads(of_record(record))["message"] == "%d rows of %s ('many',)"


def test_a_thread_that_fails_is_a_record_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    thread = threading.Thread(name="look-trading")
    for error in (RuntimeError("it broke"), SystemExit()):
        log_lines._thread_failed(threading.ExceptHookArgs((type(error), error, None, thread)))
    (record,) = caplog.records
    assert record.getMessage() == "the thread look-trading failed"
    assert "it broke" in json.loads(of_record(record))["exception"]


def test_what_is_said_after_a_run_is_of_that_run() -> None:
    for number in ("1", "2"):
        with logged_as(LoggedRun("p", "backup", number, f"FUL_of_{number}")):
            pass
    with told_of("backup", "FUL_of_1"):
        assert json.loads(json_line(30, "x"))["operation_id"] == "1"
    with told_of("verification", "FUL_of_1"):
        assert json.loads(json_line(30, "x"))["operation_id"] is None
    assert json.loads(json_line(30, "x"))["operation_id"] is None
