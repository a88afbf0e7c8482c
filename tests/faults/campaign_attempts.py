"""What an attempt of the campaign is, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.faults.campaign_world import Run, World

Complaints = list[str]

Action = Callable[[World], "Complaints | None"]


@contextmanager
def nothing_special(world: World) -> Iterator[None]:
    """Leave the world as it is."""
    yield


@dataclass(frozen=True)
class Attempt:
    """One way to lose data.

    Attributes:
        name: In words.
        action: Does it; returns complaints.
        surroundings: Prepares the world, and cleans up what lies outside of it.
        repository: Whether the repository is to be whole afterwards.
    """

    name: str
    action: Action
    surroundings: Callable[[World], AbstractContextManager[None]] = nothing_special
    repository: bool = True


ATTEMPTS: list[Attempt] = []


def attempt(
    name: str,
    surroundings: Callable[[World], AbstractContextManager[None]] | Callable[[World], None] = nothing_special,
    repository: bool = True,
) -> Callable[[Action], Action]:
    """Add an attempt. Surroundings that are a plain function only prepare."""

    def add(action: Action) -> Action:
        ATTEMPTS.append(Attempt(name, action, _as_context(surroundings), repository))
        return action

    return add


def _as_context(
    prepare: Callable[[World], AbstractContextManager[None] | None],
) -> Callable[[World], AbstractContextManager[None]]:
    @contextmanager
    def around(world: World) -> Iterator[None]:
        made = prepare(world)
        if made is None:
            yield
        else:
            with made:
                yield

    return around


def expect(run: Run, *codes: int) -> list[str]:
    """Complain about another exit code."""
    return [] if run.code in codes else [f"{' '.join(run.words)} ended with {run.code}, not {codes}"]
