"""A place is the same after all that happens to disks, mounts and machines, and another place is another one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blocks.host import identity, places
from blocks.host.identity import machine, on_this_machine, place_identity
from blocks.host.places import on_share

MACHINES = ["0123456789abcdef" * 2, "fedcba9876543210" * 2]


@pytest.fixture(autouse=True)
def machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's id, in a file that a test may change."""
    path = tmp_path / "machine-id"
    path.write_text(MACHINES[0] + "\n")
    monkeypatch.setattr(identity, "_MACHINE_IDS", (tmp_path / "missing", path))
    return path


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Numbers of folders in a file system that counts them, by their resolved paths; others have none."""
    known: dict[str, str | None] = {}
    monkeypatch.setattr(identity, "_number_of", lambda folder: known.get(os.path.realpath(folder)))
    return known


def same(one: dict[str, list[str]], other: dict[str, list[str]]) -> bool:
    return bool(set(one["place"]) & set(other["place"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


def test_nothing_is_known_of_what_is_not_there(tmp_path: Path) -> None:
    assert place_identity(tmp_path / "nowhere") == {}
    assert place_identity(tmp_path / "nowhere.db", tmp_path) == {}


def test_another_path_is_another_place_and_other_spellings_are_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other").mkdir()
    assert place_identity(tmp_path / "link") == place_identity(folder) == place_identity(folder / ".." / "state")
    assert not same(place_identity(folder), place_identity(tmp_path / "other"))


def test_one_path_on_two_machines_is_two_places(folder: Path, machine_id: Path, numbers: dict[str, str | None]) -> None:
    before = place_identity(folder)
    machine_id.write_text(MACHINES[1] + "\n")
    assert not same(before, place_identity(folder))
    numbers[str(folder)] = "inode 7.1"
    moved = place_identity(folder)
    machine_id.write_text(MACHINES[0] + "\n")
    # another disk at the same path, as after a loss; the same disk in another machine
    assert same(before, place_identity(folder))
    assert same(moved, place_identity(folder))


def test_a_folder_that_was_renamed_or_mounted_elsewhere_is_the_same(
    folder: Path, tmp_path: Path, numbers: dict[str, str | None]
) -> None:
    numbers[str(folder)] = "inode 7.1"
    before = place_identity(folder)
    moved = folder.rename(tmp_path / "moved")
    numbers[str(moved)] = "inode 7.1"
    assert same(before, place_identity(moved))
    numbers[str(moved)] = "inode 7.2"  # another folder, which got the number of one that is gone
    assert not same(before, place_identity(moved))


def test_a_file_that_was_replaced_by_another_of_its_name_is_the_same(
    folder: Path, machine_id: Path, numbers: dict[str, str | None]
) -> None:
    numbers[str(folder)] = "inode 7.1"
    database = folder / "ledger.db"
    database.write_text("old")
    before = place_identity(database, folder)
    (folder / "new").write_text("new")
    (folder / "new").replace(database)
    assert place_identity(database, folder) == before
    machine_id.write_text(MACHINES[1])
    assert same(before, place_identity(database, folder))
    (folder / "other.db").write_text("other")
    assert not same(before, place_identity(folder / "other.db", folder))


def test_a_container_without_an_id_knows_the_path_alone(folder: Path, machine_id: Path) -> None:
    machine_id.unlink()
    assert machine() is None
    assert on_this_machine("x") == "x"
    assert place_identity(folder)["place"][0] == str(folder)
    for odd in ("", "uninitialized\n", "x" * 32):
        machine_id.write_text(odd)
        assert machine() is None


def test_the_id_of_the_machine_is_not_given_away(folder: Path) -> None:
    assert MACHINES[0][:8] not in str(place_identity(folder))
    assert machine() is not None


def test_the_generation_of_a_folder_is_asked_for_where_the_file_system_has_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ioctl(fd: int, request: int, data: bytes) -> bytes:
        asked.append(request)
        return (42).to_bytes(4, "little") + bytes(4)

    monkeypatch.setattr(identity.fcntl, "ioctl", ioctl)
    assert identity._number_of(folder) == f"inode {folder.stat().st_ino}.42"
    assert asked == [0x80087601]
    monkeypatch.setattr(identity.fcntl, "ioctl", lambda *_: bytes(8))
    assert identity._number_of(folder) is None

    def refused(*_: object) -> bytes:
        raise OSError("inappropriate ioctl for device")

    monkeypatch.setattr(identity.fcntl, "ioctl", refused)
    assert identity._number_of(folder) is None
    assert identity._number_of(folder / "nowhere") is None


TABLE = b"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /srv/nas rw,relatime shared:2 - nfs4 nas.internal:/export/app rw,vers=4.2
41 22 0:41 /sub /srv/smb rw - cifs //files/share rw
42 22 0:42 / /srv/pool rw - zfs tank/data rw
"""


@pytest.mark.parametrize(
    ("path", "share"),
    [
        ("/srv/nas/models", "nas.internal:/export/app/models"),
        ("/srv/nas", "nas.internal:/export/app/"),
        ("/srv/smb/models", "//files/share/sub/models"),
        ("/srv/pool/models", None),
        ("/srv/nasty", None),
        ("/srv", None),
    ],
)
def test_a_share_has_one_name_on_all_machines(path: str, share: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_table", lambda: TABLE)
    monkeypatch.setattr(os.path, "realpath", lambda given: str(given))
    assert on_share(Path(path)) == share


def test_a_bind_mount_of_a_folder_is_the_folder(folder: Path, tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", folder, bound], check=True)
    try:
        number = identity._number_of(folder)
        assert identity._number_of(bound) == number
        assert same(place_identity(folder), place_identity(bound)) is (number is not None)
    finally:
        subprocess.run(["umount", bound], check=True)
