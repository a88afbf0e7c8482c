"""What the application keeps in Redis: open orders, positions, cash, limits, quotes, and a stream of fills.

The cash is what was started with less what all positions cost, and every open order stands in the book of its symbol.
"""

from __future__ import annotations

import random
import time
from typing import cast

from . import SYMBOLS
from .redis import Command, Redis

STARTING_CASH_CENTS = 10_000_000_000
SEED_ORDERS = 4_000
CLIENTS = 2_000
"""Fields of one large hash: of its changes only the changed fields are stored."""
KEPT_FILLS = 3_000
_DAY_MS = 86_400_000


class Cache(Redis):
    """The application's connection to its Redis."""

    def create(self) -> None:
        """Make an account, positions, limits and a day's orders."""
        chance = random.Random(11)  # noqa: S311  a simulation needs no secrecy
        self.together(
            [
                ("SET", "last_order", 0),
                ("HSET", "account", "cash_cents", STARTING_CASH_CENTS, "currency", "EUR"),
                *[("HSET", f"position:{symbol}", "quantity", 0, "cost_cents", 0) for symbol in SYMBOLS],
                ("HSET", "limits", *[w for n in range(CLIENTS) for w in (f"client:{n}", chance.randint(100, 9_999))]),
                ("XGROUP", "CREATE", "fills", "settlement", "0", "MKSTREAM"),
                ("PFADD", "venues", "north", "süd"),
            ]
        )
        self.place(chance, SEED_ORDERS)
        for _ in range(SEED_ORDERS // 4):
            self.fill(chance)

    def beat(self, chance: random.Random) -> None:
        """Place and fill some orders, settle some fills, change a limit."""
        self.place(chance, chance.randint(1, 8))
        for _ in range(chance.randint(1, 6)):
            self.fill(chance)
        self("HSET", "limits", f"client:{chance.randrange(CLIENTS)}", chance.randint(100, 9_999))
        self._settle()

    def place(self, chance: random.Random, orders: int) -> None:
        """Place orders."""
        last = cast("int", self("INCRBY", "last_order", orders))
        commands: list[Command] = []
        for number in range(last - orders + 1, last + 1):
            symbol, price = chance.choice(SYMBOLS), chance.randint(9_000, 11_000)
            facts = ("symbol", symbol, "quantity", chance.choice((-1, 1)) * chance.randint(1, 200), "price", price)
            commands += [("HSET", f"order:{number}", *facts), ("ZADD", f"book:{symbol}", price, number)]
        self.together(commands)

    def fill(self, chance: random.Random) -> None:
        """Fill the best order of a symbol: the position and the cash move in the same transaction."""
        symbol = chance.choice(SYMBOLS)
        best = cast("list[bytes]", self("ZRANGE", f"book:{symbol}", 0, 0))
        if not best:
            return
        order = b"order:" + best[0]
        quantity, price = (int(cast("bytes", value)) for value in _items(self("HMGET", order, "quantity", "price")))
        self.together(
            [
                ("DEL", order),
                ("ZREM", f"book:{symbol}", best[0]),
                ("HINCRBY", f"position:{symbol}", "quantity", quantity),
                ("HINCRBY", f"position:{symbol}", "cost_cents", quantity * price),
                ("HINCRBY", "account", "cash_cents", -quantity * price),
                ("SET", f"quote:{symbol}", price, "PXAT", time.time_ns() // 1_000_000 + _DAY_MS),
                ("XADD", "fills", "MAXLEN", KEPT_FILLS, "*", "order", best[0], "quantity", quantity, "price", price),
            ]
        )

    def _settle(self) -> None:
        """Take the next fills as a consumer, and acknowledge the first one of them."""
        taken = self("XREADGROUP", "GROUP", "settlement", "clerk", "COUNT", 2, "STREAMS", "fills", ">")
        if taken is not None:
            entries = _items(_items(_items(taken)[0])[1])
            self("XACK", "fills", "settlement", cast("bytes", _items(entries[0])[0]))

    def purge(self, orders: int) -> int:
        """Delete the oldest orders; return how many went."""
        found = sorted(self.orders())[:orders]
        symbols = self.many([("HGET", f"order:{number}", "symbol") for number in found])
        books = [("ZREM", b"book:" + cast("bytes", s), n) for s, n in zip(symbols, found, strict=True)]
        self.together([*[("DEL", f"order:{number}") for number in found], *books])
        return len(found)

    def orders(self) -> set[int]:
        """Return the numbers of all open orders."""
        return {int(cast("bytes", key).partition(b":")[2]) for key in _items(self("KEYS", "order:*"))}

    def broken(self) -> int:
        """Count what does not add up: the cash, and orders that are in no book, or books' orders that are not there."""
        costs = [int(cast("bytes", self("HGET", f"position:{s}", "cost_cents") or b"0")) for s in SYMBOLS]
        cash = int(cast("bytes", self("HGET", "account", "cash_cents") or b"0"))
        booked = {int(cast("bytes", n)) for s in SYMBOLS for n in _items(self("ZRANGE", f"book:{s}", 0, -1))}
        return (cash + sum(costs) != STARTING_CASH_CENTS) + len(booked ^ self.orders())


def _items(reply: object) -> list[object]:
    assert isinstance(reply, list)
    return reply
