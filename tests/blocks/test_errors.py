"""The tree of errors: what its drawing says, and that errors survive the way between processes."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator

import pytest

from blocks import errors
from blocks.errors import LastgoodError

_LINE = re.compile(r"((?:│   |    )*(?:├── |└── )?)(\w+) +(\d+)(?: {3}\S.*)?")


def drawn() -> list[tuple[int, str, int]]:
    """Return depth, name and exit code of each line of the drawing."""
    found = map(_LINE.fullmatch, (errors.__doc__ or "").splitlines())
    return [(len(line[1]) // 4, line[2], int(line[3])) for line in found if line]


def walked(kind: type[LastgoodError], depth: int = 0) -> Iterator[tuple[int, str, int]]:
    """Yield the same of the classes themselves."""
    yield depth, kind.__name__, kind.exit_code
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from walked(below, depth + 1)


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LastgoodError)]


def test_the_drawing_is_the_tree_with_its_exit_codes_in_the_order_of_the_classes() -> None:
    assert drawn() == list(walked(LastgoodError))
    assert len(drawn()) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_type_and_hint_between_processes(kind: type[LastgoodError]) -> None:
    again = pickle.loads(pickle.dumps(kind("plan trading failed", hint="Try again.")))
    assert (type(again), again.message, again.hint) == (kind, "plan trading failed", "Try again.")


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (errors.UnsupportedState, errors.SourceUnavailable),
        (errors.TemporaryFolderUnusable, errors.SourceUnavailable),
        (errors.BaseUnusable, errors.CorruptionDetected),
    ],
)
def test_what_is_handled_otherwise_is_of_no_common_type_but_of_one_exit_code(
    kind: type[LastgoodError], other: type[LastgoodError]
) -> None:
    assert not issubclass(kind, other)
    assert kind.exit_code == other.exit_code
