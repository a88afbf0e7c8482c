"""Large objects, written inside the transaction of a restore."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.selection import Selection
from blocks.sources.postgres.connect import Session, literal
from blocks.sources.postgres.schema.entries import statements
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, Column
from blocks.sources.postgres.write.copy import check_count, copy_rows
from blocks.sources.target import RestoreMode, RestoreScope

_CREATED = re.compile(r"SELECT pg_catalog\.lo_create\('(\d+)'\);")
_PAGE_BYTES = 2048
_PIECE_BYTES = 16 * 1024 * 1024
_SHOWN = 10
_COPY_PIECE = f"""
SELECT pg_catalog.lo_put(%(to)s::oid, %(start)s, piece)
FROM pg_catalog.lo_get(%(of)s::oid, %(start)s, {_PIECE_BYTES}) piece WHERE pg_catalog.length(piece) > 0
"""
_PAGES = (Column("loid", "bigint", "loid"), Column("pageno", "bigint", "pageno"), Column("data", "bytea", "data"))


class LargeObjects:
    """Writes the pages of large objects.

    Args:
        session: A session with the restore's transaction open.
        scope: The collections, rows and mode of the restore.
        before: Definitions of the backup, which create all its large objects.
        fresh: Whether these definitions were run in this transaction.
        copied: Whether what is replaced is kept as other large objects.
        brought: Definitions of the backup whose restore is taken back.
    """

    def __init__(
        self, session: Session, scope: RestoreScope, before: str, fresh: bool, copied: bool = False, brought: str = ""
    ) -> None:
        self._session, self._scope, self._fresh, self._copied = session, scope, fresh, copied
        self._all, self._brought = _created_by(before), _created_by(brought)
        self._copies: dict[int, int] = {}
        self._ready: set[int] = set()
        self._staged = False

    def write(self, rows: pa.Table) -> None:
        """Write the pages of one part.

        Args:
            rows: Pages with `loid`, `pageno` and `data`.
        """
        if not self._fresh:
            self._make_ready(set(rows.column("loid").to_pylist()) - self._ready)
        if self._staged:
            self._session.execute("TRUNCATE pg_temp.lastgood_pages")
        else:
            self._session.execute(
                "CREATE TEMPORARY TABLE pg_temp.lastgood_pages (loid int8, pageno int8, data bytea) ON COMMIT DROP"
            )
            self._staged = True
        copy_rows(self._session, "pg_temp.lastgood_pages", _PAGES, rows)
        put = self._session.execute(
            f"SELECT pg_catalog.count(pg_catalog.lo_put(loid::oid, pageno * {_PAGE_BYTES}, data))"
            " FROM pg_temp.lastgood_pages".encode()
        ).fetchone()
        assert put is not None
        check_count("large objects", rows.num_rows, int(str(put[0])))

    def remove(self, keys: pa.Table) -> int:
        """Remove the large objects that some pages belong to, and that the backup does not know; return their pages.

        Pages that an object of the backup has beyond those of the backup go when it is written.

        Args:
            keys: One row per page, with at least `loid`.
        """
        removed = 0
        for number in sorted(set(keys.column("loid").to_pylist()) - self._all):
            query = "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = %s"
            if self._session.execute(query, (number,)).fetchone():
                removed += pc.sum(pc.equal(keys.column("loid"), number)).as_py()
        return removed

    def _make_ready(self, wanted: Iterable[int]) -> None:
        """Create large objects that are missing, and empty those that are there."""
        for number in sorted(wanted):
            found = self._session.execute(
                "SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = %s", (number,)
            ).fetchone()
            if found is None:
                self._session.execute("SELECT pg_catalog.lo_create(%s)", (number,))
            else:
                self._copy(number)
                self._session.execute(
                    "SELECT pg_catalog.lo_truncate64(fd, 0), pg_catalog.lo_close(fd)"
                    " FROM pg_catalog.lo_open(%s, x'20000'::int4) fd",
                    (number,),
                )
            self._ready.add(number)

    def _copy(self, number: int) -> None:
        """Keep what a large object of others holds as another one, piece by piece."""
        if not self._copied:
            return
        made = self._session.execute("SELECT pg_catalog.lo_create(0)::int8").fetchone()
        assert made is not None
        self._copies[number] = copy = int(str(made[0]))
        start = 0
        while self._session.execute(_COPY_PIECE, {"of": number, "to": copy, "start": start}).fetchone() is not None:
            start += _PIECE_BYTES
        said = f"What large object {number} held before a restore; drop it when you need it no more."
        self._session.execute(f"COMMENT ON LARGE OBJECT {copy} IS {literal(said)}".encode())

    @property
    def notes(self) -> list[str]:
        """Say where what was replaced is kept."""
        if not self._copies:
            return []
        first = ", ".join(f"{number} as {copy}" for number, copy in list(self._copies.items())[:_SHOWN])
        more = f" and {len(self._copies) - _SHOWN} more" if len(self._copies) > _SHOWN else ""
        return [
            f"What large objects held is kept as others, whose comments say so: {first}{more}; drop them when you need"
            " them no more."
        ]

    def finish(self) -> None:
        """Empty what has no page in the backup; remove what an exact restore does not know, or one taken back made."""
        held = any(spec.name == LARGE_OBJECTS for spec, _ in self._scope.collections)
        if self._fresh or not (held or LARGE_OBJECTS in self._scope.created):
            return
        selection = self._scope.selection_of(LARGE_OBJECTS)
        live = {
            int(str(n)) for (n,) in self._session.execute("SELECT oid::int8 FROM pg_catalog.pg_largeobject_metadata")
        }
        chosen = _selected(selection, self._all | live)
        if held:
            self._make_ready((self._all & chosen) - self._ready)
        exact = held and self._scope.mode is RestoreMode.EXACT
        for number in sorted((live & chosen) - self._all):
            if exact or number in self._brought:
                self._copy(number)
                self._session.execute("SELECT pg_catalog.lo_unlink(%s)", (number,))


def _created_by(definitions: str) -> set[int]:
    if not _CREATED.search(definitions):
        return set()
    found = (_CREATED.fullmatch(statement) for _, statement in statements(definitions))
    return {int(match[1]) for match in found if match}


def _selected(selection: Selection, numbers: set[int]) -> set[int]:
    rows = pa.table({"loid": pa.array(sorted(numbers), pa.int64())})
    return set(selection.rows(rows, ("loid",)).column(0).to_pylist())
