"""What a killed run leaves on the server is never taken for a restored database, and the next run drops it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from blocks.records import BackupStatus, BackupType
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books
from tests.blocks.sources.postgres.stopped import Zygote
from tests.postgres_server import PostgresServer

SCRATCH = "lastgood_scratch_0123456789abcdef"
PLACES = [
    "blocks.sources.postgres.sessions:Sessions._take",
    "blocks.sources.postgres.write.build:Build.commit",
    "blocks.sources.postgres.write.scratch:TemporaryDatabase.complete",
]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    yield (made := Zygote())
    made.close()


@pytest.fixture(scope="module")
def books(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """A backup that no test changes."""
    server.create(
        "small",
        "CREATE TABLE parent (id serial PRIMARY KEY, name text UNIQUE)",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
        "INSERT INTO parent (name) SELECT 'n' || g FROM generate_series(1, 100) g; INSERT INTO child VALUES (1, 1)",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        made = Books(server, tmp_path_factory.mktemp("small"), "small")
        made.back_up(BackupType.FULL)
    return made


def databases(server: PostgresServer) -> set[str]:
    with server.connect("postgres") as session:
        rows = session.execute("SELECT datname::text FROM pg_database WHERE datname ~ '^(lastgood|killed)'")
        return {str(name) for (name,) in rows}


def wait_until_gone(server: PostgresServer, whose: str = "application_name = 'lastgood'") -> None:
    """Wait until the server has noticed that its clients are gone."""
    with server.connect("postgres") as session:
        end = time.monotonic() + 30
        others = f"SELECT count(*) FROM pg_stat_activity WHERE {whose}"
        while (row := session.execute(others.encode()).fetchone()) and row[0]:
            assert time.monotonic() < end


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.share(3)
def test_a_killed_restore_leaves_nothing_that_looks_restored_and_the_next_run_sweeps(
    books: Books, zygote: Zygote, place: str
) -> None:
    with zygote.stopped(books, place, books.server.dsn("killed")) as run:
        run.kill()
    wait_until_gone(books.server)
    (left,) = databases(books.server)
    assert left.startswith("lastgood_building_")
    result = books.restore(to=books.server.dsn("killed"))
    assert f"Database {left} was dropped: a run that was killed had left it." in result.notes
    assert databases(books.server) == {"killed"}
    assert books.dump("killed") == books.dump()
    books.server.run("postgres", "DROP DATABASE killed")


@pytest.mark.parametrize("place", [*PLACES, "blocks.sources.postgres.write.scratch:TemporaryDatabase.drop"])
@pytest.mark.share(2)
def test_what_a_killed_verification_leaves_is_swept_by_the_next(books: Books, zygote: Zygote, place: str) -> None:
    with zygote.stopped(books, place, None) as run:
        run.kill()
    wait_until_gone(books.server)
    (left,) = databases(books.server)
    assert left.startswith("lastgood_scratch_")
    assert make_verification(books.plan).status is BackupStatus.VERIFIED
    assert databases(books.server) == set()


@pytest.mark.parametrize("place", [*PLACES, "blocks.sources.postgres.write.scratch:TemporaryDatabase.drop"])
def test_a_living_run_keeps_its_database(books: Books, zygote: Zygote, place: str) -> None:
    with zygote.stopped(books, place, None) as run:
        (alive,) = databases(books.server)
        assert make_verification(books.plan).status is BackupStatus.VERIFIED
        assert databases(books.server) == {alive}
        run.go_on()
    assert databases(books.server) == set()


def test_only_abandoned_databases_of_ours_are_dropped(books: Books) -> None:
    kept = ["lastgood_scratch_x", "lastgood_scratch_0123456789abcdef0", "lastgood", SCRATCH.replace("0", "1")]
    books.server.run("postgres", *(f"CREATE DATABASE {name}" for name in [*kept, SCRATCH]))
    # one of our names that somebody else uses
    books.server.run(kept[-1], "CREATE TABLE precious ()")
    with books.server.connect(SCRATCH):
        make_verification(books.plan)
        assert databases(books.server) == {*kept, SCRATCH}
    wait_until_gone(books.server, f"datname = '{SCRATCH}'")
    make_verification(books.plan)
    assert databases(books.server) == set(kept)
    books.server.run("postgres", *(f"DROP DATABASE {name}" for name in kept))


def test_a_place_inside_a_folder_is_no_scratch_database(books: Books, tmp_path: Path) -> None:
    """Where a person restores several sources into a folder, no verification may take the database away."""
    place = books.source.inside(tmp_path / "elsewhere" / "books")
    books.restore(to=place)
    name = psycopg.conninfo.conninfo_to_dict(place)["dbname"]
    assert str(name).startswith(f"{books.database}_restored_")
    make_verification(books.plan, "latest", deep=True)
    assert books.dump(str(name)) == books.dump()
    books.server.run("postgres", f"DROP DATABASE {name}")
