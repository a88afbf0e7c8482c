"""Buckets: what is read again, what is kept, what is refused, and what storages refuse."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, LastgoodError, Partial, RestoreRefused, SourceUnavailable
from blocks.rows.index import PartIndex, PartLookup
from blocks.sources.files import FilesSource
from blocks.sources.files.bucket_scratch import ScratchObjects, scratch_objects
from blocks.sources.files.rows import TREE
from blocks.sources.reading import FullRead
from blocks.sources.target import RestoreMode
from blocks.storage.bucket_objects import Asked, Fetched, Upload
from blocks.storage.buckets import PIECE_BYTES, Bucket
from tests.blocks.sources.files.bucket_adapter import MIB, BucketAdapter
from tests.conformance.chains import (
    DIGEST_OF,
    Kept,
    apply_all,
    back_up,
    follow_up,
    ready,
    restore,
    restore_in_place,
)
from tests.object_servers import KEY_ID_ENV, SECRET, SECRET_ENV, Seaweed
from tests.refusing_proxy import Proxy, denied, refusing_proxy

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
ODD = {"a//b": "1", "/lead": "2", "folder/": "", "./x": "3", "../up": "4", "a": "5", "a/b": "6", "n" * 300: "7"}


@pytest.fixture
def state(s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketAdapter:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return BucketAdapter(tmp_path, s3)


@pytest.fixture
def proxy(s3: Seaweed) -> Iterator[Proxy]:
    with refusing_proxy(s3.endpoint) as proxy:
        yield proxy


def through(proxy: Proxy, state: BucketAdapter, prefix: str = "live", **fields: object) -> FilesSource:
    settings = state.server.settings.model_copy(update={"endpoint": proxy.endpoint})
    return FilesSource(url=f"s3://{state.bucket}/{prefix}", storage=settings, part_size_bytes=MIB, **fields)


def settle(state: BucketAdapter) -> None:
    """Wait until times of change prove objects by the server's clock."""
    place = Bucket(state.source.url, state.server.settings)
    while True:
        found = place.list()
        if all(found.at - stamp.modified >= 2 for stamp in found.objects.values()):
            return place.close()
        time.sleep(0.2)


def read_since(source: FilesSource, kept: Kept) -> list[FullRead]:
    readings = []
    with source.view() as view:
        for piece in kept.pieces["tree"]:
            base = PartIndex(piece.indexes)
            known = PartLookup(lambda base=base: base, len(base), TREE.key, DIGEST_OF, None)
            readings.append(view.read(TREE, piece.bounds, known))
        view.finish()
    return readings


# -- what changed since


def test_only_objects_whose_token_changed_are_read(state: BucketAdapter, proxy: Proxy) -> None:
    for name in ("same", "size", "gone", "described"):
        state.write(name, b"12345", Metadata={"n": "1"})
    settle(state)
    base = back_up(through(proxy, state))
    state.write("size", b"54321")
    state.remove("gone")
    at = {"Bucket": state.bucket, "Key": "live/described"}
    state.client.copy_object(**at, CopySource=at, Metadata={"n": "2"}, MetadataDirective="REPLACE")
    proxy.seen.clear()
    readings = read_since(through(proxy, state), base)
    read = {path.rpartition("/")[2] for method, path in proxy.seen if method == "GET" and "?" not in path}
    assert read == {"size", "described"}
    assert not any(method == "HEAD" for method, _ in proxy.seen)
    assert {path for one in readings for path in one.rows.column("path").to_pylist()} == {b"", b"size", b"described"}
    now = follow_up(state.source, base)
    assert now.content() == back_up(state.source).content()


def test_an_object_that_was_written_a_moment_ago_is_read_again(state: BucketAdapter) -> None:
    state.write("new", b"1")
    kept = back_up(state.source)
    entry = next(row for rows in kept.rows("tree") for row in rows.to_pylist() if row["kind"] == "file")
    assert entry["ctime_ns"] is None  # a second change in the same second could look the same


def test_a_version_is_part_of_the_token(state: BucketAdapter) -> None:
    state.client.put_bucket_versioning(Bucket=state.bucket, VersioningConfiguration={"Status": "Enabled"})
    state.write("one", b"1")
    state.write("gone", b"1")
    state.remove("gone")
    place = Bucket(state.source.url, state.server.settings)
    first = place.list().objects
    (looked,) = place.look(["one"])
    assert list(first) == ["one"]
    assert isinstance(looked, Fetched)
    assert first["one"].version not in ("", "null")
    assert looked.stamp == first["one"]
    state.write("one", b"1")
    assert place.list().objects["one"].version != first["one"].version
    place.close()


def test_a_large_object_is_of_one_version_in_all_of_its_parts(state: BucketAdapter) -> None:
    state.write("large", os.urandom(3 * MIB))
    with state.source.view() as view:
        bounds = view.partition(TREE)
        assert len(bounds) > 2
        for one in bounds[:2]:
            view.read(TREE, one, None)
        state.write("large", os.urandom(3 * MIB))
        with pytest.raises(SourceUnavailable, match="large changed while its parts were read"):
            view.read(TREE, bounds[2], None)


# -- keys and metadata


def scratch(folder: Path, objects: Mapping[str, str]) -> tuple[FilesSource, ScratchObjects]:
    place = scratch_objects(folder)
    kept = ScratchObjects(place)
    (folder / "content").mkdir(parents=True)
    uploads = []
    for number, (key, text) in enumerate(objects.items()):
        path = folder / "content" / str(number)
        path.write_text(text)
        uploads.append(Upload(key, os.fsencode(path), len(text), {"meta.key": str(number)}))
    assert kept.put(uploads) == []
    return FilesSource(url="s3://bucket").at(place), kept


def pictured(place: ScratchObjects) -> dict[str, tuple[bytes, Mapping[str, str]]]:
    keys = list(place.list().objects)
    found = dict(zip(keys, place.fetch([Asked(key) for key in keys]), strict=True))
    return {key: (one.data, one.attributes) for key, one in found.items() if isinstance(one, Fetched)}


def test_keys_that_are_no_paths_come_back_to_a_bucket(tmp_path: Path) -> None:
    source, live = scratch(tmp_path / "live", ODD)
    there = scratch_objects(tmp_path / "there")
    restore(back_up(source), source, there)
    assert pictured(ScratchObjects(there)) == pictured(live)
    assert {key: data.decode() for key, (data, _) in pictured(live).items()} == ODD


@pytest.mark.parametrize("key", ["a//b", "/lead", "folder/", "./x", "../up", "n" * 300, ".lastgood-restore-x", "a/b"])
def test_keys_that_are_no_paths_are_refused_before_a_folder_is_written(tmp_path: Path, key: str) -> None:
    source, _ = scratch(tmp_path / "live", {"a": "1", "good": "2", key: "3"})
    folder = tmp_path / "folder"
    with pytest.raises(RestoreRefused, match="cannot be a file") as refused:
        restore(back_up(source), source, str(folder))
    assert key in str(refused.value)
    assert "--keep-going" in refused.value.hint
    assert not folder.exists()
    assert [*tmp_path.glob("*lastgood*")] == []


def test_keys_that_are_no_paths_are_left_out_and_named(tmp_path: Path) -> None:
    source, _ = scratch(tmp_path / "live", {**ODD, "good": "8"})
    folder = tmp_path / "folder"
    kept = back_up(source)
    scope = replace(kept.scope(), keep_going=True)
    target = source.target(scope, str(folder))
    target.preflight()
    apply_all(kept, target, scope)
    target.commit()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "5", "good": "8"}
    assert len(target.not_rebuilt) == len(ODD) - 1
    assert target.rows_left_out == {"tree": 2 * (len(ODD) - 1)}


def test_metadata_go_through_a_folder_and_come_back(state: BucketAdapter, tmp_path: Path) -> None:
    state.write("a/page", b"<p>", ContentType="text/html", CacheControl="no-cache", Metadata={"owner": "me"})
    state.write("empty", b"", Metadata={"n": "1"})
    state.write("zeros", bytes(2 * MIB), ContentType="x/y")
    settle(state)
    folder = tmp_path / "folder"
    restore(back_up(state.source), state.source, str(folder))
    page = folder / "a" / "page"
    named = {name: os.getxattr(page, name) for name in os.listxattr(page)}
    assert named == {
        "user.s3.content-type": b"text/html",
        "user.s3.cache-control": b"no-cache",
        "user.s3.meta.owner": b"me",
    }
    assert (page.read_bytes(), page.stat().st_mode & 0o777) == (b"<p>", 0o644)
    modified = state.client.head_object(Bucket=state.bucket, Key="live/a/page")["LastModified"]
    assert page.stat().st_mtime == modified.timestamp()
    assert (folder / "zeros").read_bytes() == bytes(2 * MIB)
    assert time.time() - folder.stat().st_mtime < 3600
    kept, place = back_up(FilesSource(url=str(folder))), state.place()
    restore(kept, state.source, place)
    assert state.picture(place) == state.picture()


def test_what_a_bucket_does_not_hold_of_a_tree_is_refused_or_told(state: BucketAdapter, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("1")
    (tree / "link").symlink_to("file")
    kept = back_up(FilesSource(url=str(tree)))
    with pytest.raises(RestoreRefused, match="link cannot be an object: it is a symbolic link"):
        restore(kept, state.source, state.place())
    scope = replace(kept.scope(), keep_going=True)
    target = state.source.target(scope, place := state.place())
    target.preflight()
    apply_all(kept, target, scope)
    target.commit()
    assert [key for _, key in state.picture(place)] == ["file"]
    assert [one.name for one in target.not_rebuilt] == ["object link"]
    assert "1 files became objects" in target.notes[0]


def test_large_objects_are_written_in_pieces(state: BucketAdapter) -> None:
    content = os.urandom(PIECE_BYTES + 5)
    state.write("large", content, ContentType="x/y", Metadata={"m": "1"})
    place = state.place()
    restore(back_up(state.source), state.source, place)
    assert state.picture(place) == state.picture()


# -- restores in place


def test_objects_that_are_as_they_were_are_not_written_again(state: BucketAdapter, proxy: Proxy) -> None:
    for name in ("same", "other", "gone"):
        state.write(name, name.encode(), Metadata={"n": name})
    settle(state)
    before, kept = state.picture(), back_up(state.source)
    state.write("other", b"changed")
    state.remove("gone")
    state.write("new", b"new")
    restore_in_place(kept, through(proxy, state))
    assert state.picture() == before
    written = {path.rpartition("/")[2] for method, path in proxy.seen if method == "PUT"}
    assert written == {"other", "gone"}


def test_a_narrowed_restore_touches_nothing_else(state: BucketAdapter) -> None:
    for name in ("a/1", "a/2", "b/1"):
        state.write(name, b"1")
    kept = back_up(state.source)
    for name in ("a/1", "b/1", "a/3"):
        state.write(name, b"2")
    state.remove("a/2")
    restore_in_place(kept, state.source, keys=("a/*",))
    assert {key: state.read(key) for key in state.names()} == {"a/1": b"1", "a/2": b"1", "b/1": b"2"}


def test_what_was_written_since_the_backup_before_stops_a_restore(state: BucketAdapter) -> None:
    state.write("one", b"1")
    state.write("gone", b"1")
    kept = back_up(state.source)
    state.write("one", b"2")
    target = state.source.target(kept.scope())
    try:
        ready(kept, state.source, target, kept.scope())
        state.write("one", b"3")
        state.write("new", b"3")
        state.remove("gone")
        told = "gone was deleted, new is new, one was written to"
        with pytest.raises(RestoreRefused, match=f"is being written to.*{told}"):
            target.check_unwritten()
        with pytest.raises(RestoreRefused, match="is being written to"):
            target.commit()
        assert not target.changed
    finally:
        target.abort()
    assert {key: state.read(key) for key in state.names()} == {"one": b"3", "new": b"3"}
    assert state.leftovers() == set()


def test_a_merge_to_another_place_replaces_nothing_unless_told(state: BucketAdapter) -> None:
    for name in ("one", "two"):
        state.write(name, b"1")
    kept, place = back_up(state.source), state.place()
    state.prefix = "place1/"
    state.write("one", b"precious")
    state.write("beside", b"3")
    for overwrite in (False, True):
        scope = replace(kept.scope(MERGE), in_place=False, overwrite=overwrite)
        target = state.source.target(scope, place)
        target.preflight()
        apply_all(kept, target, scope)
        if overwrite:
            target.commit()
        else:
            with pytest.raises(RestoreRefused, match=r"one in .* would be replaced") as refused:
                target.commit()
            assert "--overwrite" in refused.value.hint
            assert state.read("one", "place1/") == b"precious"
        target.abort()
    assert {key: state.read(key, "place1/") for key in state.names()} == {"one": b"1", "two": b"1", "beside": b"3"}


# -- what storages refuse


def test_an_object_that_cannot_be_read_fails_a_backup_or_is_left_as_the_base_has_it(
    state: BucketAdapter, proxy: Proxy
) -> None:
    state.write("open", b"1")
    state.write("closed", b"1")
    base = back_up(through(proxy, state))
    state.write("closed", b"2")
    proxy.rule = lambda method, path, body: (403, denied()) if path.endswith("/closed") else None
    with pytest.raises(SourceUnavailable, match="closed cannot be read: 403 AccessDenied"):
        back_up(through(proxy, state))
    skipping = through(proxy, state, on_unreadable="skip")
    with skipping.view() as view:
        rows = [view.read(TREE, bounds, None) for bounds in view.partition(TREE)]
    assert any("closed cannot be read" in warning for one in rows for warning in one.warnings)
    (reading,) = read_since(skipping, base)
    assert reading.unchanged is not None
    assert len(reading.unchanged) >= 2  # entry and content of it


def test_what_no_backup_has_is_not_replaced(state: BucketAdapter, proxy: Proxy) -> None:
    state.write("closed", b"1")
    state.write("open", b"1")
    kept = back_up(state.source)
    state.write("closed", b"2")
    state.write("open", b"2")
    proxy.rule = lambda method, path, body: (403, denied()) if (method, path[-7:]) == ("GET", "/closed") else None
    for keep_going in (False, True):
        source, scope = through(proxy, state), replace(kept.scope(), keep_going=keep_going)
        target = source.target(scope)
        target.preflight()
        with source.salvage() as view:
            target.guard(view)
            for bounds in view.partition(TREE):
                view.read(TREE, bounds, None)
            target.keep_aside(view.unread)
        apply_all(kept, target, scope)
        if keep_going:
            target.commit()
            assert [one.name for one in target.not_rebuilt] == ["object closed"]
        else:
            with pytest.raises(RestoreRefused, match=r"closed .*would be replaced or deleted: it cannot be read"):
                target.check_unwritten()
        target.abort()
    assert {key: state.read(key) for key in state.names()} == {"closed": b"2", "open": b"1"}


def test_a_refused_object_is_named_and_nothing_is_deleted(state: BucketAdapter, proxy: Proxy) -> None:
    for name in ("good", "bad"):
        state.write(name, b"1")
    kept = back_up(state.source)
    for name in ("good", "bad", "new"):
        state.write(name, b"2")
    proxy.rule = lambda method, path, body: (403, denied()) if (method, path[-4:]) == ("PUT", "/bad") else None
    with pytest.raises(Partial, match=r"bad could not be written: 403 AccessDenied"):
        restore(kept, through(proxy, state))
    assert {key: state.read(key) for key in state.names()} == {"good": b"1", "bad": b"2", "new": b"2"}


def test_a_deletion_that_was_refused_for_one_key_is_named(state: BucketAdapter, proxy: Proxy) -> None:
    kept = back_up(state.source)
    state.write("kept", b"1")

    def rule(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if method != "POST" or "delete" not in path:
            return None
        refused = b"<Error><Key>live/kept</Key><Code>AccessDenied</Code><Message>locked</Message></Error>"
        return 200, b"<DeleteResult>" + refused + b"</DeleteResult>"

    proxy.rule = rule
    with pytest.raises(Partial, match="kept could not be deleted: AccessDenied locked"):
        restore(kept, through(proxy, state))


def test_an_upload_that_stops_leaves_nothing_visible(state: BucketAdapter, proxy: Proxy) -> None:
    state.write("large", os.urandom(2 * PIECE_BYTES + 1))
    kept, place = back_up(state.source), state.place()
    proxy.rule = lambda method, path, body: (403, denied()) if "partNumber=2" in path else None
    with pytest.raises(Partial, match="large could not be written"):
        restore(kept, through(proxy, state), place)
    assert state.picture(place) == {}
    left = state.client.list_multipart_uploads(Bucket=state.bucket).get("Uploads", [])
    assert left == []


def test_what_is_wrong_with_a_bucket_is_said_by_field(state: BucketAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = state.source.at("s3://there-is-no-such-bucket/x")
    with pytest.raises(SourceUnavailable, match="there is no bucket at s3://there-is-no-such-bucket/x") as failed:
        back_up(missing)
    assert "`url`" in failed.value.hint
    down = state.server.settings.model_copy(update={"endpoint": "http://127.0.0.1:1", "attempts": 1})
    with pytest.raises(SourceUnavailable, match="cannot be reached") as failed:
        back_up(state.source.model_copy(update={"storage": down}))
    assert "`endpoint`" in failed.value.hint
    monkeypatch.setenv(SECRET_ENV, "wrong-and-secret")
    with pytest.raises(SourceUnavailable, match="403 SignatureDoesNotMatch") as failed:
        back_up(state.source)
    assert_secretless(failed.value, "wrong-and-secret")
    with pytest.raises(RestoreRefused, match="SignatureDoesNotMatch"):
        state.source.target(back_up_of_nothing(state).scope()).preflight()
    monkeypatch.delenv(SECRET_ENV)
    with pytest.raises(
        ConfigurationError, match=f"storage.secret_env: the environment variable {SECRET_ENV} is not set"
    ) as unset:
        back_up(state.source)
    assert "repository" not in str(unset.value)


def test_credentials_that_are_named_come_before_those_of_the_environment(
    state: BucketAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = state.server.environment
    for path, secret in (("own", known[SECRET_ENV]), ("wrong", "of-nobody")):
        text = f"[default]\naws_access_key_id = {known[KEY_ID_ENV]}\naws_secret_access_key = {secret}\n"
        (tmp_path / path).write_text(text)
    place = {"endpoint": state.server.endpoint, "region": "us-east-1"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", known[KEY_ID_ENV])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-nobody")
    assert back_up(FilesSource(url=state.source.url, storage=place | {"credentials_file": tmp_path / "own"})).pieces
    with pytest.raises(ConfigurationError, match="there is no file"):
        back_up(FilesSource(url=state.source.url, storage=place | {"credentials_file": tmp_path / "none"}))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", known[SECRET_ENV])
    with pytest.raises(SourceUnavailable, match="SignatureDoesNotMatch"):
        back_up(FilesSource(url=state.source.url, storage=place | {"credentials_file": tmp_path / "wrong"}))
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match=r"^storage.token_env: .*MY_TOKEN is not set"):
        back_up(FilesSource(url=state.source.url, storage=place | {"token_env": "MY_TOKEN"}))


def back_up_of_nothing(state: BucketAdapter) -> Kept:
    return back_up(FilesSource(url=str(state.folder)))


def assert_secretless(error: BaseException | None, secret: str) -> None:
    while error is not None:
        assert secret not in f"{error!r} {error} {getattr(error, 'hint', '')}"
        assert SECRET not in f"{error!r} {error}"
        error = error.__cause__


@pytest.mark.parametrize("url", ["s3://", "s3://key:secret@bucket/x", "s3://key@bucket", "s3://bucket/x?y=1"])
def test_urls_that_name_no_bucket_are_refused(url: str) -> None:
    with pytest.raises((ConfigurationError, ValueError)) as refused:
        FilesSource(url=url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"url": "/folder", "storage": {"region": "x"}}, "`storage` means nothing to a folder"),
        ({"url": "s3://bucket", "one_file_system": True}, "`one_file_system` means nothing to a bucket"),
        ({"url": "s3://bucket", "storage": {"account": "x"}}, "storage: account means nothing to s3://"),
        ({"url": "gs://bucket"}, "only local folders and buckets"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(LastgoodError, match=named) as refused:
        FilesSource(**fields)
    assert "repository" not in str(refused.value)


def test_a_listing_of_several_pages_and_batches(state: BucketAdapter, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"12345")
    keys = [f"k/{number:05}" for number in range(1_100)]
    place = Bucket(state.source.url, state.server.settings)
    assert place.put([Upload(key, os.fsencode(content), 5) for key in keys]) == []
    assert sorted(place.list().objects) == keys
    assert place.remove(keys) == []
    assert place.list().objects == {}
    place.close()
    with pytest.raises(SourceUnavailable, match="not read any more"):
        place.list()
