"""The application as a process: a beat of trades, and orders from outside."""

from __future__ import annotations

import argparse
import json
import random
import selectors
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from . import Places
from .cache import Cache
from .files import retire, retrain
from .ledger import Trader, open_ledger

BEAT_SECONDS = 0.02
PURGED_ORDERS = 400
PURGED_FILLS = 500


class Application:
    """Trades until it is told to stop."""

    def __init__(self, places: Places, exits: ExitStack) -> None:
        self._folder = places.folder
        self._ledger = exits.enter_context(closing(open_ledger(places.ledger)))
        self._chance = random.Random()  # noqa: S311  a simulation needs no secrecy
        self._trader = Trader(self._ledger, self._chance)
        self._cache = exits.enter_context(Cache(places.cache)) if places.cache is not None else None
        self._books = None
        if places.books is not None:
            from .books import Books  # brings a driver along, which an application without books does not need

            self._books = exits.enter_context(Books(places.books))
        self._transactions = 0
        self._paused = False

    def run(self) -> None:
        """Trade until `stop` comes, or the one who started this is gone."""
        words: dict[str, Callable[[], dict[str, int]]] = {
            "pause": lambda: self._pause(True),
            "resume": lambda: self._pause(False),
            "purge": self._purge,
            "retrain": self._retrain,
        }
        with selectors.DefaultSelector() as inbox:
            inbox.register(sys.stdin, selectors.EVENT_READ)
            while True:
                if not inbox.select(None if self._paused else BEAT_SECONDS):
                    self._beat()
                    continue
                word = sys.stdin.readline().strip()
                if word not in words:
                    break
                print(json.dumps(words[word]() | {"transactions": self._transactions}), flush=True)

    def _beat(self) -> None:
        with self._ledger:
            self._trader.place(self._chance.randint(1, 20))
            self._trader.fill(self._chance.randint(1, 15))
            self._trader.cancel(self._chance.randint(0, 2))
            if self._transactions % 10 == 0:
                self._trader.measure()
        if self._cache is not None:
            self._cache.beat(self._chance)
        if self._books is not None:
            self._books.beat(self._chance)
        self._transactions += 1

    def _pause(self, paused: bool) -> dict[str, int]:
        self._paused = paused
        return {}

    def _purge(self) -> dict[str, int]:
        with self._ledger:
            gone = {"rows": self._trader.purge()}
        gone["files"] = retire(self._folder)
        if self._cache is not None:
            gone["keys"] = self._cache.purge(PURGED_ORDERS)
        if self._books is not None:
            gone["rows"] += self._books.purge(PURGED_FILLS)
        return gone

    def _retrain(self) -> dict[str, int]:
        retrain(self._folder, self._chance, f"challenger-{self._transactions}")
        return {"files": 3}


def main() -> None:
    """Run on the state that the arguments name."""
    parser = argparse.ArgumentParser(prog="trading")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--books")
    given = parser.parse_args()
    with ExitStack() as exits:
        Application(Places(given.folder, given.cache, given.books), exits).run()


if __name__ == "__main__":
    main()
