"""Calling the user's object: its methods may be plain or async, and what they raise is said in our words."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from blocks.errors import ConfigurationError, LastgoodError, SourceChanged, SourceUnavailable, UnsupportedState
from blocks.rows.without_pandas import know_pandas
from blocks.sources.mapping.answers import NotStored, is_no, keys_of, refused_keys
from blocks.sources.mapping.held import HeldState, SnapshotState
from blocks.sources.mapping.running import FAILURES, finished, on_loop, told
from blocks.sources.mapping.tiers import Tiers

READING = ("get_keys_by_pattern", "get_state")
WRITING = ("set_state",)

BATCH_KEYS = 500
"""Values handed to the object at once."""

Keep = Callable[[str, object], None]
"""Takes a key and the value read under it."""


def import_object(path: str, folders: Sequence[str]) -> Any:
    """Import `package.module:attribute`; `folders` are looked in after all other places.

    Raises:
        ConfigurationError: There is no such thing.
    """
    module, _, name = path.partition(":")
    sys.path += [folder for folder in folders if folder not in sys.path]
    know_pandas()
    try:
        found: Any = importlib.import_module(module)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except FAILURES as exc:  # importing runs the user's code, which may raise anything
        raise ConfigurationError(
            f"{path} cannot be imported: {told(exc)}",
            hint="Check `object` in the plan; `search_path` names folders where its module is looked for.",
        ) from exc
    return found


class StateObject:
    """The user's object, one call at a time.

    Args:
        path: Its import path, for messages.
        made: The user's object, or the factory that makes it.
        timeout_seconds: How long one async call may take.
        tiers: Where it keeps values in tiers, which one each key belongs to.
    """

    def __init__(self, path: str, made: Any, timeout_seconds: float, tiers: Tiers | None = None) -> None:
        self._path, self._made, self._timeout, self._tiers = path, made, timeout_seconds, tiers
        self._lock = threading.RLock()

    def need(self, methods: Sequence[str]) -> None:
        """Check that the object has some methods.

        Raises:
            ConfigurationError: One is missing.
        """
        for name in methods:
            if not self.offers(name):
                raise ConfigurationError(
                    f"{self._path} has no method {name}", hint="docs/sources.md says what a state object offers."
                )

    def offers(self, method: str) -> bool:
        """Whether the object has a method."""
        with self._translated(method):
            return callable(getattr(self._made, method, None))

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List the keys that match any of the patterns, each once.

        Raises:
            UnsupportedState: A key is not text.
        """
        found: dict[str, None] = {}
        for pattern in patterns:
            for key in self._listed(pattern):
                found[_checked_key(key, self._path)] = None
        return list(found)

    def _listed(self, pattern: str) -> list[object]:
        call = f"get_keys_by_pattern({pattern!r})"
        with self._lock, self._translated(call):
            return keys_of(f"{self._path}.{call}", finished(self._made.get_keys_by_pattern(pattern), self._timeout))

    def read(self, keys: Sequence[str], keep: Keep) -> list[str]:
        """Read values one after another; return the keys for which KeyError was raised.

        `keep` is called before the next call of the object, which may hand out what it goes on changing.
        """
        missing: list[str] = []
        with self._lock:
            for n, key in enumerate(keys):
                with self._translated(f"get_state({key!r})"):
                    try:
                        value = self._made.get_state(key)
                    except KeyError:
                        missing.append(key)
                        continue
                    if not inspect.isawaitable(value):
                        keep(key, value)
                        continue
                # one visit to the loop for all the rest: a visit costs more than most calls
                with self._translated(f"get_state({key!r})"):
                    return missing + on_loop(self._read_async(keys[n:], value, keep))
        return missing

    async def _read_async(self, keys: Sequence[str], first: Awaitable[object], keep: Keep) -> list[str]:
        missing = []
        for n, key in enumerate(keys):
            with self._translated(f"get_state({key!r})"):
                try:
                    async with asyncio.timeout(self._timeout):
                        value = await (self._made.get_state(key) if n else first)
                except KeyError:
                    missing.append(key)
                    continue
                keep(key, value)
        return missing

    @property
    def is_held(self) -> bool:
        """Whether it is a picture of values, which does not fail."""
        return isinstance(self._made, HeldState)

    @property
    def batch_keys(self) -> int:
        """How many keys `write` sets in one call of the object."""
        return BATCH_KEYS if self.offers("batch_set_state") else 1

    def is_same(self, other: StateObject) -> bool:
        """Whether both are one and the same object."""
        return self._made is other._made

    def write(self, values: dict[str, object]) -> None:
        """Set values, at once where the object can.

        Raises:
            SourceUnavailable: The object failed, or says that it did not set all of them.
        """
        with self._lock:
            if self.offers("batch_set_state"):
                given = values if self._tiers is None else self._tiers.batch(values, self._made)
                call = f"batch_set_state of {len(values)} keys from {next(iter(values))!r} on"
                self._set(call, lambda: self._made.batch_set_state(given), list(values))
                return
            for key, value in values.items():
                tier = () if self._tiers is None else (self._tiers.of(key, self._made),)
                set_one = lambda key=key, value=value, tier=tier: self._made.set_state(key, value, *tier)  # noqa: E731
                self._set(f"set_state({key!r})", set_one, [key])

    def _set(self, call: str, method: Callable[[], object], keys: Sequence[str]) -> None:
        with self._translated(call):
            refused = refused_keys(finished(method(), self._timeout), keys, call)
        if refused:
            raise NotStored(f"{self._path}.{call} answered {refused}: it did not set all that it was given")

    def delete(self, keys: Sequence[str]) -> list[str]:
        """Delete keys; one that is gone already is fine. Return those of which the object says that it did not."""
        refused = []
        with self._lock:
            for key in keys:
                with self._translated(f"delete_state({key!r})"), suppress(KeyError):
                    answer = finished(self._made.delete_state(key), self._timeout)
                    if is_no(answer):
                        refused.append(key)
        return refused

    def snapshot(self) -> StateObject | None:
        """Return the object as it was at one point in time; None where it answers None.

        Raises:
            ConfigurationError: What `create_snapshot` gave cannot be read.
        """
        with self._lock, self._translated("create_snapshot()"):
            made = finished(self._made.create_snapshot(), self._timeout)
        if made is None:
            return None
        path = f"{self._path}.create_snapshot()"
        snapshot = StateObject(path, made, self._timeout)
        if isinstance(made, Mapping) and not all(snapshot.offers(method) for method in READING):
            return StateObject(path, SnapshotState(made, self._listed), self._timeout)
        if isinstance(made, str | bytes | int | float):
            raise ConfigurationError(
                f"{path} answered a {type(made).__name__}, which holds no state",
                hint="It answers an object with the reading methods, a dict of all keys and values, or None.",
            )
        snapshot.need(READING)
        return snapshot

    def close(self) -> None:
        """Close the object where it can be closed."""
        for name in ("aclose", "close"):
            if self.offers(name):
                with self._lock, self._translated(f"{name}()"):
                    finished(getattr(self._made, name)(), self._timeout)
                return

    @contextmanager
    def _translated(self, call: str) -> Iterator[None]:
        try:
            yield
        except LastgoodError:
            raise
        except TimeoutError as exc:
            raise SourceUnavailable(f"{self._path}.{call} took longer than {self._timeout:g} seconds") from exc
        except FAILURES as exc:  # it is the user's code, which may raise anything
            # so Python says that a container is being changed while it is looped over
            kind = SourceChanged if isinstance(exc, RuntimeError) else SourceUnavailable
            raise kind(f"{self._path}.{call} failed: {told(exc)}") from exc


def _checked_key(key: object, where: str) -> str:
    if not isinstance(key, str) or type(key) is not str:
        raise UnsupportedState(f"{where} has the key {key!r}, which is no text", hint="Keys are text.")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise UnsupportedState(f"{where} has the key {key!r} with a lone surrogate, which is no Unicode") from exc
    return key


@contextmanager
def open_object(
    path: str, folders: Sequence[str], timeout_seconds: float, tiers: Tiers | None = None
) -> Iterator[StateObject]:
    """Import the user's object, or call the factory that makes it; what a factory made is closed afterwards.

    Raises:
        ConfigurationError: There is none, or it lacks a method.
        SourceUnavailable: The factory failed.
    """
    found = import_object(path, folders)
    try:
        made_here = inspect.isclass(found) or (callable(found) and not hasattr(found, "get_state"))
        if made_here:
            found = finished(found(), timeout_seconds)
    except LastgoodError:
        raise
    except FAILURES as exc:  # it is the user's code, which may raise anything
        raise SourceUnavailable(f"{path}() failed: {told(exc)}") from exc
    state = StateObject(path, found, timeout_seconds, tiers)
    try:
        state.need(READING)
        yield state
    finally:
        if made_here:
            state.close()
