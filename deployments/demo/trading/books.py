"""The books, in PostgreSQL: fills, and a journal of double entries that a trigger keeps.

Every fill has two entries, and they add up to nothing.
"""

from __future__ import annotations

import random
from types import TracebackType

import psycopg

from . import SYMBOLS

SEED_FILLS = 10_000

SCHEMA = """
CREATE TYPE side AS ENUM ('buy', 'sell');
CREATE TABLE accounts (id int PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE fills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    side side NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    price numeric(12, 4) NOT NULL,
    amount numeric GENERATED ALWAYS AS (quantity * price) STORED,
    tags text[],
    venue jsonb,
    filled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX fills_by_symbol ON fills (symbol, filled_at);
CREATE TABLE journal (
    fill bigint REFERENCES fills ON DELETE CASCADE,
    account int REFERENCES accounts,
    amount numeric(18, 4) NOT NULL,
    PRIMARY KEY (fill, account)
);
CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO journal VALUES
        (new.id, 1, CASE new.side WHEN 'buy' THEN -new.quantity * new.price ELSE new.quantity * new.price END),
        (new.id, 2, CASE new.side WHEN 'buy' THEN new.quantity * new.price ELSE -new.quantity * new.price END);
    RETURN NULL;
END $$;
CREATE TRIGGER entered AFTER INSERT ON fills FOR EACH ROW EXECUTE FUNCTION enter();
CREATE VIEW balances AS SELECT account, sum(amount) AS amount FROM journal GROUP BY account;
INSERT INTO accounts VALUES (1, 'cash'), (2, 'securities');
"""

_FILL = """
INSERT INTO fills (symbol, side, quantity, price, tags, venue)
SELECT (%(symbols)s::text[])[1 + n %% 8], (ARRAY['buy', 'sell']::side[])[1 + n / 8 %% 2], 1 + n * 7919 %% 200,
       90 + (n * 104729 %% 200000) / 10000.0, CASE n %% 3 WHEN 0 THEN ARRAY['rebalance', 'Zoë'] END,
       jsonb_build_object('name', 'süd', 'fee', n %% 10)
FROM generate_series(%(start)s::bigint, %(start)s::bigint + %(count)s::bigint - 1) n
"""

INVARIANT = """
SELECT (SELECT count(*) FROM fills f
        WHERE (SELECT count(*) FROM journal j WHERE j.fill = f.id) <> 2
           OR (SELECT sum(j.amount) FROM journal j WHERE j.fill = f.id) <> 0)
     + (SELECT count(*) FROM journal j WHERE NOT EXISTS (SELECT FROM fills f WHERE f.id = j.fill))
"""
"""Counts fills whose entries do not add up, and entries without a fill."""


class Books:
    """The application's connection to its PostgreSQL.

    Args:
        conninfo: How libpq connects.

    Raises:
        psycopg.Error: The server does not answer.
    """

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)

    def __enter__(self) -> Books:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def create(self) -> None:
        """Make tables, accounts, and the fills of earlier days."""
        with self._connection.transaction():
            self._connection.execute(SCHEMA)
            self._fill(0, SEED_FILLS)

    def beat(self, chance: random.Random) -> None:
        """Book some fills in one transaction."""
        self._fill(chance.randrange(10**6), chance.randint(1, 10))

    def _fill(self, start: int, count: int) -> None:
        self._connection.execute(_FILL, {"symbols": list(SYMBOLS), "start": start, "count": count})

    def purge(self, fills: int) -> int:
        """Delete the cheapest fills, and their entries with them; return how many rows went."""
        gone = self._connection.execute(
            "DELETE FROM fills WHERE id IN (SELECT id FROM fills ORDER BY price, id LIMIT %s)", (fills,)
        )
        return gone.rowcount * 3

    def fills(self) -> set[int]:
        """Return the numbers of all fills."""
        return {int(number) for (number,) in self._connection.execute("SELECT id FROM fills")}

    def broken(self) -> int:
        """Count what does not add up."""
        row = self._connection.execute(INVARIANT).fetchone()
        assert row is not None
        return int(row[0])
