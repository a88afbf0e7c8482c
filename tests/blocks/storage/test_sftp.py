from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import asyncssh
import pytest

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    PlaceMissing,
    RepositoryFull,
    RepositoryUnavailable,
    StorageRefused,
    StorageUnreachable,
)
from blocks.repository.capabilities import prove
from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.settings import StorageSettings
from blocks.storage.sftp import SftpTier
from blocks.storage.sftp_login import address_of
from tests.sftp_server import KINDS, PASSWORD, PASSWORD_ENV, ROOT, SftpServer, sftp_server


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(request.param, tmp_path_factory.mktemp("sftp") / "server") as server:
        yield server


@pytest.fixture
def server(running: SftpServer) -> Iterator[SftpServer]:
    yield running
    running.release()


@pytest.fixture(scope="module")
def python_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server("python", tmp_path_factory.mktemp("sftp") / "server") as running:
        yield running


@pytest.fixture
def tier(server: SftpServer) -> SftpTier:
    return server.tier()


def kept(server: SftpServer, tier: SftpTier) -> Path:
    """The folder of a tier on the server's disk."""
    return server.files / tier.url.rpartition("/")[2]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_objects_are_put_read_by_range_listed_and_removed(tier: SftpTier) -> None:
    for data in (b"0123456789", bytearray(b"0123456789"), memoryview(b"0123456789")):
        tier.put("a/b/c", data)
        tier.put("a/b/c", data, exclusive=True)
    assert tier.get("a/b/c") == b"0123456789"
    assert (tier.get("a/b/c", 3, 4), tier.get("a/b/c", 8, 9), tier.get("a/b/c", 20, 5)) == (b"3456", b"89", b"")
    assert (tier.get("a/b/c", 4), tier.get("a/b/c", 0, 0), tier.get("a/b/c", 10)) == (b"456789", b"", b"")
    assert (tier.size("a/b/c"), tier.exists("a/b/c"), tier.is_object("a/b/c")) == (10, True, True)
    assert (tier.exists("a/b/d"), tier.is_object("a/b"), tier.is_object("a/b/d")) == (False, False, False)
    tier.put("a/2", b"")
    assert tier.get("a/2") == b""
    assert [(one.name, one.size_bytes) for one in tier.list()] == [("a/2", 0), ("a/b/c", 10)]
    assert [one.name for one in tier.list("a/b/")] == ["a/b/c"]
    assert all(abs(one.modified_at - datetime.now(UTC)) < timedelta(minutes=1) for one in tier.list())
    assert (tier.list("none/here/"), tier.folders("a/"), tier.folders("none/")) == ([], ["b"], [])
    tier.remove(["a/b/c", "a/none", "none/at/all"])
    assert (tier.folders("a/"), [one.name for one in tier.list()]) == ([], ["a/2"])
    tier.remove([])


def test_what_is_larger_than_a_piece_comes_back_whole(tier: SftpTier) -> None:
    data = os.urandom((9 << 20) + 13)
    tier.put("big", data)
    tier.put("big", data, exclusive=True)
    assert tier.get("big") == data
    assert tier.get("big", (4 << 20) - 5, 10) == data[(4 << 20) - 5 : (4 << 20) + 5]
    with pytest.raises(AlreadyExists):
        tier.put("big", data[:-1] + bytes([data[-1] ^ 1]), exclusive=True)


def test_put_replaces_and_an_exclusive_put_does_not(tier: SftpTier) -> None:
    tier.put("object", b"first")
    tier.put("object", b"second")
    for other in (b"third", b"secnod"):
        with pytest.raises(AlreadyExists, match="object exists already in sftp://"):
            tier.put("object", other, exclusive=True)
    assert (tier.get("object"), tier.leftovers()) == (b"second", [])


def test_of_writers_with_connections_of_their_own_exactly_one_wins(server: SftpServer) -> None:
    name = f"race-{time.monotonic_ns()}"
    tiers = [server.tier(name, timeout_seconds=30 + number) for number in range(8)]
    assert len(set(map(id, tiers))) == 8
    for round_ in range(5):
        start = threading.Barrier(8)

        def write(number: int, contested: str = f"locks/{round_}", start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                tiers[number].put(contested, b"%d" % number, exclusive=True)
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert won.count(True) == 1
        assert tiers[0].get(f"locks/{round_}") == b"%d" % won.index(True)
    assert tiers[0].leftovers() == []


def test_what_a_repository_needs_of_a_storage_is_proved(tier: SftpTier) -> None:
    proved = prove(tier)
    assert (proved.exclusive_creation, proved.ranges, proved.list_after_write) == (True, True, True)
    assert tier.list() == []


def test_files_and_folders_are_for_their_owner_only(server: SftpServer) -> None:
    tier = server.tier(f"new-{time.monotonic_ns()}/deeper/tier")
    tier.put("a/b/one", b"1")
    tier.put("a/b/two", b"2", exclusive=True)
    made = [path for path in server.files.rglob("*") if "deeper" in str(path)]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_file()}
    assert (modes, {stat.S_IMODE(path.stat().st_mode) for path in made if path.is_dir()}) == ({0o600}, {0o700})


def test_an_object_is_replaced_by_one_with_its_owner_and_mode(server: SftpServer, tier: SftpTier) -> None:
    tier.put("object", b"before", like_before=True)
    path = kept(server, tier) / "object"
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    path.chmod(0o640)
    before = path.stat()
    tier.put("object", b"after", like_before=True)
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert tier.get("object") == b"after"


def test_an_object_is_written_over_in_its_place(server: SftpServer, tier: SftpTier) -> None:
    tier.put("lease", b"0123456789")
    inode = (kept(server, tier) / "lease").stat().st_ino
    tier.overwrite("lease", b"short")
    assert (tier.get("lease"), (kept(server, tier) / "lease").stat().st_ino) == (b"short", inode)
    with pytest.raises(RepositoryUnavailable, match="cannot write over none"):
        tier.overwrite("none", b"x")


def test_what_is_no_object_is_told_from_one_that_is_missing(server: SftpServer, tier: SftpTier) -> None:
    tier.put("a/object", b"0123456789")
    os.mkfifo(kept(server, tier) / "fifo")
    with pytest.raises(ObjectUnreadable, match="fifo"):
        tier.get("fifo")
    assert not tier.is_object("fifo")
    for name in ("none", "a", "a/object/below"):
        with pytest.raises(ObjectMissing, match=re.escape(name)):
            tier.get(name)
    with pytest.raises(CorruptionDetected, match="10 bytes"):
        tier.get("a/object", limit=9)
    assert tier.get("a/object", limit=10) == b"0123456789"
    for name in ("../outside", "/absolute", "a//b", "a/./b", ""):
        with pytest.raises(ConfigurationError):
            tier.put(name, b"")


def test_removals_take_empty_folders_along_and_name_what_stays(server: SftpServer, tier: SftpTier) -> None:
    names = [f"packs/{number % 3}/{number}" for number in range(600)]
    root = kept(server, tier)
    for number in range(3):
        (root / "packs" / str(number)).mkdir(parents=True)
    for name in names:
        (root / name).write_bytes(b"x")
    (root / "packs" / "0" / "3").unlink()
    (root / "packs" / "0" / "3").mkdir()
    (root / "packs" / "0" / "3" / "in-the-way").write_bytes(b"")
    with pytest.raises(RepositoryUnavailable, match=r"could not remove packs/0/3: "):
        tier.remove(names)
    assert files(root) == ["packs/0/3/in-the-way"]
    assert tier.folders("packs/") == ["0"]


def test_only_old_empty_folders_are_pruned(server: SftpServer, tier: SftpTier) -> None:
    root = kept(server, tier)
    for name in ("old", "young", "full"):
        (root / "backups" / name).mkdir(parents=True)
    (root / "backups" / "full" / "object").write_bytes(b"")
    for name in ("old", "full"):
        os.utime(root / "backups" / name, (0, 0))
    tier.prune("backups/", datetime.now(UTC) - timedelta(hours=1))
    assert tier.folders("backups/") == ["full", "young"]
    tier.prune("none/", datetime.now(UTC))


def test_a_folder_that_is_missing_is_made_by_prepare_alone(server: SftpServer) -> None:
    tier = server.tier(prepared=False)
    uses = (lambda: tier.put("a", b""), lambda: tier.get("a"), lambda: tier.exists("a"), tier.list, tier.folders)
    for use in (*uses, tier.leftovers, lambda: tier.remove(["a"])):
        with pytest.raises(PlaceMissing, match=r"sftp://.* is not there"):
            use()
    assert not kept(server, tier).exists()
    tier.prepare()
    tier.prepare()
    assert (tier.list(), tier.exists("a")) == ([], False)


def test_names_that_only_others_give_do_no_harm(server: SftpServer, tier: SftpTier) -> None:
    root = kept(server, tier)
    (root / "lost+found").mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_bytes(b"")
    (root / "link").symlink_to("nowhere")
    assert len(tier.list()) == 2
    assert tier.folders() == ["lost+found"]
    tier.prune("", datetime.now(UTC) + timedelta(hours=1))


@contextmanager
def killed_at(server: SftpServer, operation: str, restarted: bool = True) -> Iterator[None]:
    """Kill the server the first time before an operation, and start it again."""
    left = [True]

    def hook(done: str, _name: str, when: str) -> None:
        if (done, when) == (operation, "before") and left:
            left.clear()
            server.kill()
            if restarted:
                server.start()

    before = StorageTier.durable
    StorageTier.durable = staticmethod(hook)
    try:
        yield
    finally:
        StorageTier.durable = staticmethod(before)
    assert not left


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("operation", ["mkdir", "write", "link", "replace", "delete"])
def test_a_put_survives_a_server_that_is_killed_and_restarted(
    server: SftpServer, tier: SftpTier, operation: str, exclusive: bool
) -> None:
    if operation in ({"replace"} if exclusive else {"link", "delete"}):
        exclusive = not exclusive
    with killed_at(server, operation):
        tier.put("new/object", b"whole", exclusive=exclusive)
    assert tier.get("new/object") == b"whole"
    assert [one.name for one in tier.list()] == ["new/object"]
    # what the killed attempt left is named, and goes
    tier.remove([one.name for one in tier.leftovers()])
    assert files(kept(server, tier)) == ["new/object"]


def test_other_calls_survive_it_too(server: SftpServer, tier: SftpTier) -> None:
    tier.put("a/1", b"one")
    for call in (lambda: tier.get("a/1"), lambda: tier.list(), lambda: tier.size("a/1"), lambda: tier.folders()):
        server.kill()
        server.start()
        assert call()
    with killed_at(server, "delete"):
        tier.remove(["a/1", "a/2"])
    assert tier.list() == []


def test_a_server_that_dies_while_data_arrive_leaves_no_object(server: SftpServer, tier: SftpTier) -> None:
    data = os.urandom(48 << 20)
    root = kept(server, tier)

    def kill() -> None:
        while not any(path.stat().st_size for path in root.glob(".big.*.tmp")):
            time.sleep(0.001)
        server.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(StorageUnreachable, match=r"cannot write big in sftp://.*\(3 attempts\)"):
            tier.put("big", data, exclusive=True)
        killer.join()
        assert not (root / "big").exists()
    finally:
        killer.join()
        server.start()
    assert (tier.exists("big"), len(tier.leftovers())) == (False, 1)
    tier.put("big", data, exclusive=True)
    tier.remove([one.name for one in tier.leftovers()])
    assert files(root) == ["big"]


def test_a_server_that_does_not_answer_is_given_up_in_time(server: SftpServer) -> None:
    tier = server.tier(timeout_seconds=1, attempts=2)
    tier.put("a", b"1")
    server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StorageUnreachable, match=r"cannot read a in sftp://.*\(2 attempts\)"):
            tier.get("a")
        assert time.monotonic() - began < 10
    finally:
        server.signal(signal.SIGCONT)
    assert tier.get("a") == b"1"


def test_a_host_that_is_not_known_is_never_asked(server: SftpServer, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown"
    unknown.write_text("# nobody\n")
    other = server.know(tmp_path / "other", "other")
    revoked = tmp_path / "revoked"
    revoked.write_text(f"@revoked {server.know(tmp_path / 'one', 'host').read_text()}")
    torn = tmp_path / "torn"
    torn.write_text("torn\n")
    for file, said in (
        (unknown, "is not among the known SSH hosts in .*unknown"),
        (other, "shows another host key than .*other has"),
        (revoked, "is not among the known SSH hosts in .*revoked"),
        (torn, "cannot log in to sftp://.*: Invalid known hosts entry"),
        (tmp_path / "none", "the known SSH hosts in .*none cannot be read"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        tier = server.tier("never", prepared=False, known_hosts=file)
        with pytest.raises(StorageRefused, match=said) as refused:
            tier.prepare()
        assert file.name in refused.value.hint or "known_hosts" in refused.value.hint
    assert not (server.files / "never").exists()
    with pytest.raises(StorageRefused, match="shows another host key") as refused:
        server.tier("never", known_hosts=other)
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in refused.value.hint


def test_known_hosts_are_those_of_the_user_where_none_are_named(
    server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    # nothing in there turns the check off
    (tmp_path / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(StorageRefused, match=r"\.ssh/known_hosts cannot be read"):
        server.tier(known_hosts=None)
    server.know(tmp_path / ".ssh" / "known_hosts", "host")
    server.tier(known_hosts=None).put("a", b"")


def test_keys_are_found_as_ssh_finds_them(server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    with pytest.raises(StorageRefused, match="refused the login"):
        server.tier(key_file=None)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.DEVNULL)
    try:
        while not (tmp_path / "agent").exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", str(server.folder / "user")], check=True)
        tier = server.tier(key_file=None)
        tier.put("a", b"")
        tier.close()
    finally:
        agent.kill()
        agent.wait()
    monkeypatch.delenv("SSH_AUTH_SOCK")
    (tmp_path / ".ssh" / "id_ed25519").write_bytes((server.folder / "user").read_bytes())
    server.tier(key_file=None, attempts=4).put("a", b"")


def test_another_key_is_refused_in_words(server: SftpServer) -> None:
    with pytest.raises(StorageRefused, match=r"sftp://.* refused the login") as refused:
        server.tier(key_file=server.folder / "other")
    assert "storage.key_file" in refused.value.hint


def test_a_key_that_cannot_be_used_is_found_before_anything_is_asked(
    server: SftpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    asyncssh.read_private_key(str(server.folder / "user")).write_private_key(
        str(locked), "pkcs8-pem", "test-passphrase"
    )
    (tmp_path / "none.pem").write_text("no key")
    for file, said in (
        (locked, "key_file: .*locked cannot be used"),
        (tmp_path / "none.pem", "cannot be used"),
        (tmp_path / "missing", "cannot be read: No such file"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            server.tier(key_file=file)
    monkeypatch.setenv(PASSWORD_ENV, "wrong-passphrase")
    with pytest.raises(ConfigurationError, match="cannot be opened with the passphrase") as wrong:
        server.tier(key_file=locked, secret_env=PASSWORD_ENV)
    assert "wrong-passphrase" not in str(wrong.value) + wrong.value.hint
    monkeypatch.setenv(PASSWORD_ENV, "test-passphrase")
    server.tier(key_file=locked, secret_env=PASSWORD_ENV, attempts=4).put("a", b"")
    # ssh's own form
    shutil.copy(server.folder / "user", tmp_path / "own")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "test-passphrase", "-f", str(tmp_path / "own")], check=True)
    if find_spec("bcrypt"):
        server.tier(key_file=tmp_path / "own", secret_env=PASSWORD_ENV, attempts=4).put("a", b"")
    else:
        with pytest.raises(ConfigurationError, match="bcrypt") as without:
            server.tier(key_file=tmp_path / "own", secret_env=PASSWORD_ENV, attempts=4)
        assert "SSH agent" in without.value.hint


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_a_password_comes_from_a_variable_and_is_in_no_error(
    python_server: SftpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(ConfigurationError, match=f"{PASSWORD_ENV}.* is not set"):
        python_server.tier(key_file=None, secret_env=PASSWORD_ENV)
    monkeypatch.setenv(PASSWORD_ENV, PASSWORD)
    tier = python_server.tier(key_file=None, secret_env=PASSWORD_ENV)
    tier.put("a", b"1")
    assert tier.get("a") == b"1"
    monkeypatch.setenv(PASSWORD_ENV, "a-wrong-password")
    with pytest.raises(StorageRefused, match="refused the login") as refused:
        python_server.tier(key_file=None, secret_env=PASSWORD_ENV, attempts=2)
    said = "".join(f"{one!r} {getattr(one, 'hint', '')}" for one in chain(refused.value)) + caplog.text
    assert "a-wrong-password" not in said
    assert PASSWORD not in said


@pytest.mark.parametrize("advertised", [False, True])
def test_a_server_without_what_a_repository_needs_is_refused_in_words(tmp_path: Path, advertised: bool) -> None:
    with sftp_server("python", tmp_path / "links", lacking=("hardlink",), advertised=advertised) as lacking:
        tier = lacking.tier()
        with pytest.raises(StorageRefused, match=r"knows no hard links \(hardlink@openssh"):
            tier.put("a", b"", exclusive=True)
        with pytest.raises(StorageRefused, match="knows no hard links"):
            prove(tier)
        assert (tier.list(), tier.leftovers()) == ([], [])
        # who writes alone may do without
        alone = open_tier(tier.url, lacking.settings, single_writer=True)
        alone.put("a", b"1", exclusive=True)
        alone.put("a", b"1", exclusive=True)
        with pytest.raises(AlreadyExists):
            alone.put("a", b"2", exclusive=True)
        assert (alone.get("a"), alone.leftovers()) == (b"1", [])
    with sftp_server("python", tmp_path / "rename", lacking=("rename",), advertised=advertised) as lacking:
        tier = lacking.tier()
        with pytest.raises(StorageRefused, match=r"cannot replace a file at one stroke \(posix-rename@openssh"):
            tier.put("a", b"")
        assert (tier.list(), tier.leftovers()) == ([], [])
    with sftp_server("python", tmp_path / "fsync", lacking=("fsync",), advertised=advertised) as lacking:
        tier = lacking.tier()
        tier.put("a", b"1", exclusive=True)
        tier.put("a", b"2")
        assert tier.get("a") == b"2"


def test_names_are_made_durable_where_folders_can_be_opened(
    server: SftpServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = asyncssh.SFTPClientFile.fsync

    async def seen(file: asyncssh.SFTPClientFile) -> None:
        await fsync(file)
        synced.append(file)

    monkeypatch.setattr(asyncssh.SFTPClientFile, "fsync", seen)
    caplog.set_level("INFO")
    tier = server.tier(attempts=7)
    synced.clear()
    tier.put("a", b"1", exclusive=True)
    tier.put("b", b"2")
    # the contents, and the folder after each of them
    assert len(synced) == (4 if server.kind == "openssh" else 2)
    assert ("makes no names of files durable" in caplog.text) == (server.kind != "openssh")
    assert (tier.get("a"), tier.get("b")) == (b"1", b"2")


def test_a_full_disk_is_told_from_other_failures(server: SftpServer) -> None:
    tier = server.tier()
    root = kept(server, tier)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(root)], check=True)
    try:
        tier.put("lease", b"0123456789")
        with pytest.raises(RepositoryFull, match=r"cannot write big in sftp://.*no room is left") as full:
            tier.put("big", bytes(1 << 20), exclusive=True)
        assert "lastgood retention" in full.value.hint
        assert files(root) == ["lease"]
        (root / "filler").write_bytes(bytes(os.statvfs(root).f_bavail * 4096))
        with pytest.raises(RepositoryFull):
            tier.put("small", b"x")
        tier.overwrite("lease", b"9876543210")
        tier.remove(["filler"])
        assert tier.get("lease") == b"9876543210"
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_a_user_who_may_not_write_is_told_so(server: SftpServer) -> None:
    tier = server.tier()
    tier.put("a", b"1")
    root = kept(server, tier)
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        with pytest.raises(RepositoryUnavailable, match="cannot write b in sftp://"):
            tier.put("b", b"")
        with pytest.raises(RepositoryUnavailable, match="could not remove a"):
            tier.remove(["a"])
        assert tier.get("a") == b"1"
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_many_threads_share_one_connection(tier: SftpTier) -> None:
    before = {thread.ident for thread in threading.enumerate() if thread.name == "sftp"}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: tier.put(f"a/{n % 7}/{n}", b"%d" % n), range(200)))
        assert list(pool.map(lambda n: tier.get(f"a/{n % 7}/{n}"), range(200))) == [b"%d" % n for n in range(200)]
    assert len(tier.list()) == 200
    assert {thread.ident for thread in threading.enumerate() if thread.name == "sftp"} <= before


def test_a_forked_process_connects_by_itself(tier: SftpTier) -> None:
    tier.put("a", b"1")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tier.put("b", tier.get("a"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    tier.put("c", b"3")
    assert [one.name for one in tier.list()] == ["a", "b", "c"]


def test_a_process_ends_at_once_and_silently(server: SftpServer) -> None:
    settings = server.settings
    program = (
        "import contextlib, os, signal, sys\n"
        "from blocks.storage.kinds import open_tier\n"
        "from blocks.storage.settings import StorageSettings\n"
        f"s = StorageSettings(key_file={str(settings.key_file)!r}, known_hosts={str(settings.known_hosts)!r})\n"
        "open_tier('/tmp', StorageSettings())\n"
        "assert 'asyncssh' not in sys.modules\n"
        f"t = open_tier({server.url('ends')!r}, s)\n"
        "t.prepare(); t.put('a', b'1'); print(t.get('a'))\n"
        "def processes(pid):\n"
        "    yield pid\n"
        "    with contextlib.suppress(OSError):\n"
        "        for child in open(f'/proc/{pid}/task/{pid}/children').read().split():\n"
        "            yield from processes(int(child))\n"
        "for pid in sys.argv[1:]:\n"
        "    for one in list(processes(int(pid))):\n"
        "        with contextlib.suppress(ProcessLookupError): os.kill(one, signal.SIGSTOP)\n"
    )
    try:
        # also where the server does not answer any more
        for stopped in ([], server.processes[:1]):
            began = time.monotonic()
            command = [sys.executable, "-c", program, *map(str, stopped)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stdout, done.stderr) == (0, "b'1'\n", "")
            assert time.monotonic() - began < 20
    finally:
        server.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("url", "root", "place"),
    [
        ("sftp://u@h/a/b", "/a/b", "sftp://u@h/a/b"),
        ("sftp://u@H:22//a/./b/", "/a/b", "sftp://u@h/a/b"),
        ("sftp://h:2222/a%20b", "/a b", "sftp://h:2222/a b"),
        ("sftp://h/", "/", "sftp://h/"),
        ("sftp://u@h/~", ".", "sftp://u@h/~"),
        ("sftp://u@h/~/a/b/", "a/b", "sftp://u@h/~/a/b"),
        ("sftp://u@[::1]:2222/a", "/a", "sftp://u@[::1]:2222/a"),
    ],
)
def test_a_url_names_a_folder(url: str, root: str, place: str) -> None:
    address = address_of(url)
    assert (address.root, address.place) == (root, place)
    assert address_of(place) == address


@pytest.mark.parametrize(
    "url",
    ["sftp://h", "sftp:///a", "sftp://h/a?x=1", "sftp://h/a#b", "sftp://h/a/../b", "sftp://h:x/a", "sftp://u:p@h/a"],
)
def test_a_url_that_names_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"repository\.url") as refused:
        open_tier(url, StorageSettings())
    assert "u:p" not in str(refused.value)


def test_a_path_can_begin_where_a_login_does(server: SftpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    if server.kind == "openssh":
        # the folder of its user is not ours: it is only looked at
        url = re.sub(r"(:\d+)/.*", r"\1/~", server.url("x"))
        assert isinstance(open_tier(url, server.settings).folders(), list)
        return
    tier = open_tier(server.url("x").removesuffix("/x") + "/~/home/tier", server.settings)
    tier.prepare()
    tier.put("a/b", b"1")
    assert files(server.files / "home" / "tier") == ["a/b"]
    tier.remove(["a/b"])
    assert tier.list() == []


def test_the_top_of_a_server_can_be_a_repository(python_server: SftpServer) -> None:
    for url in (python_server.url(""), python_server.url("") + "~"):
        tier = open_tier(url, python_server.settings)
        tier.prepare()
        tier.put("top/a", b"1", exclusive=True)
        tier.put("top-b", b"2", exclusive=True)
        assert {"top/a", "top-b"} <= {one.name for one in tier.list()}
        assert files(python_server.files / "top") == ["a"]
        tier.remove(["top/a", "top-b"])
        assert not (python_server.files / "top").exists()


def test_errors_of_a_server_that_is_not_there(tmp_path: Path, python_server: SftpServer) -> None:
    settings = python_server.settings.model_copy(update={"attempts": 2})
    for url, said in (
        ("sftp://u@127.0.0.1:1/x", r"(refused|Connect call failed).*\(2 attempts\)"),
        ("sftp://u@no-such-host.invalid/x", r"no-such-host\.invalid.*\(2 attempts\)"),
    ):
        with pytest.raises(StorageUnreachable, match=said) as unreachable:
            open_tier(url, settings).prepare()
        assert isinstance(unreachable.value, LastgoodError)
        assert unreachable.value.hint
