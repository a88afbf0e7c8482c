"""Calling the user's object: its methods may be plain or async, and what they raise is said in our words."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from blocks.errors import ConfigurationError, LastgoodError, SourceChanged, SourceUnavailable, UnsupportedState

T = TypeVar("T")

READING = ("get_keys_by_pattern", "get_state")
WRITING = ("set_state",)

Keep = Callable[[str, object], None]
"""Takes a key and the value read under it."""


@cache
def _loop_of(pid: int) -> asyncio.AbstractEventLoop:
    """Start the one event loop on which the coroutines of users' objects run in this process.

    One for all, because an async object keeps connections and locks that belong to the loop they were made on.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="lastgood-mapping", daemon=True).start()
    return loop


def finished(result: Any, timeout_seconds: float) -> Any:
    """Return a result, waiting for it where it is a coroutine.

    Raises:
        TimeoutError: It took longer than allowed.
    """
    if isinstance(result, AsyncIterable) and not isinstance(result, Awaitable):
        result = _gathered(result)
    if not inspect.isawaitable(result):
        return result
    return on_loop(asyncio.wait_for(_awaited(result), timeout_seconds))


def on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop of this process and wait for it."""
    running = asyncio.run_coroutine_threadsafe(work, _loop_of(os.getpid()))
    try:
        return running.result()
    except BaseException:
        running.cancel()
        raise


async def _awaited(result: Awaitable[Any]) -> Any:
    done = await result
    return await _gathered(done) if isinstance(done, AsyncIterable) else done


async def _gathered(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def import_object(path: str, folders: Sequence[str]) -> Any:
    """Import `package.module:attribute`; `folders` are looked in after all other places.

    Raises:
        ConfigurationError: There is no such thing.
    """
    module, _, name = path.partition(":")
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        found: Any = importlib.import_module(module)
        for attribute in name.split("."):
            found = getattr(found, attribute)
    except Exception as exc:  # importing runs the user's code, which may raise anything
        raise ConfigurationError(
            f"{path} cannot be imported: {type(exc).__name__}: {exc}",
            hint="Check `object` in the plan; `search_path` names folders where its module is looked for.",
        ) from exc
    return found


class StateObject:
    """The user's object, one call at a time.

    Args:
        path: Its import path, for messages.
        made: The object.
        timeout_seconds: How long one async call may take.
    """

    def __init__(self, path: str, made: Any, timeout_seconds: float) -> None:
        self._path, self._made, self._timeout = path, made, timeout_seconds
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
        return callable(getattr(self._made, method, None))

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List the keys that match any of the patterns, each once.

        Raises:
            UnsupportedState: A key is not text.
        """
        found: dict[str, None] = {}
        for pattern in patterns:
            for key in self._listed(pattern):
                _check_key(key, self._path)
                found[key] = None
        return list(found)

    def _listed(self, pattern: str) -> Iterable[Any]:
        with self._lock, self._translated(f"get_keys_by_pattern({pattern!r})"):
            return list(finished(self._made.get_keys_by_pattern(pattern), self._timeout))

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

    def write(self, values: dict[str, object], wrote: Callable[[int], None]) -> None:
        """Set values, at once where the object can; `wrote` counts those that are done."""
        with self._lock:
            if self.offers("batch_set_state"):
                with self._translated(f"batch_set_state of {len(values)} keys from {next(iter(values))!r} on"):
                    finished(self._made.batch_set_state(values), self._timeout)
                wrote(len(values))
                return
            for key, value in values.items():
                with self._translated(f"set_state({key!r})"):
                    finished(self._made.set_state(key, value), self._timeout)
                wrote(1)

    def delete(self, keys: Sequence[str], wrote: Callable[[int], None]) -> None:
        """Delete keys; one that is gone already is fine."""
        with self._lock:
            for key in keys:
                with self._translated(f"delete_state({key!r})"), suppress(KeyError):
                    finished(self._made.delete_state(key), self._timeout)
                wrote(1)

    def snapshot(self) -> StateObject:
        """Return the object as it was at one point in time.

        Raises:
            ConfigurationError: What `create_snapshot` gave cannot be read.
        """
        with self._lock, self._translated("create_snapshot()"):
            made = finished(self._made.create_snapshot(), self._timeout)
        snapshot = StateObject(f"{self._path}.create_snapshot()", made, self._timeout)
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
        except Exception as exc:  # it is the user's code, which may raise anything
            # so Python says that a container is being changed while it is looped over
            kind = SourceChanged if isinstance(exc, RuntimeError) else SourceUnavailable
            raise kind(f"{self._path}.{call} failed: {type(exc).__name__}: {exc}") from exc


def _check_key(key: object, where: str) -> None:
    if type(key) is not str:
        raise UnsupportedState(f"{where} has the key {key!r}, which is no text", hint="Keys are text.")
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise UnsupportedState(f"{where} has the key {key!r} with a lone surrogate, which is no Unicode") from exc


@contextmanager
def open_object(path: str, folders: Sequence[str], timeout_seconds: float) -> Iterator[StateObject]:
    """Import the user's object, or call the factory that makes it; what a factory made is closed afterwards.

    Raises:
        ConfigurationError: There is none, or it lacks a method.
        SourceUnavailable: The factory failed.
    """
    found = import_object(path, folders)
    made_here = inspect.isclass(found) or (callable(found) and not hasattr(found, "get_state"))
    if made_here:
        try:
            found = finished(found(), timeout_seconds)
        except Exception as exc:  # it is the user's code, which may raise anything
            raise SourceUnavailable(f"{path}() failed: {type(exc).__name__}: {exc}") from exc
    state = StateObject(path, found, timeout_seconds)
    try:
        state.need(READING)
        yield state
    finally:
        if made_here:
            state.close()
