"""A plan whose source is a bucket: its whole life, what its repository may not be, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lastgood
from blocks.crypto.keyring import NoEncryption
from blocks.errors import ConfigurationError, LastgoodError, Partial, RestoreRefused, SourceGone, SourceUnavailable
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupStatus
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.places import settle_places
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from flows.verify import make_verification
from tests.blocks.sources.files.bucket_adapter import BucketAdapter
from tests.flows.flow_support import DIFFERENTIAL, FULL, INCREMENTAL, MERGE
from tests.object_servers import KEY_ID, SECRET, Seaweed


@pytest.fixture
def state(s3: Seaweed, tmp_path: Path) -> BucketAdapter:
    return BucketAdapter(tmp_path, s3)


@pytest.fixture
def plan(state: BucketAdapter, tmp_path: Path) -> BackupPlan:
    plan = planned(tmp_path, uploads=state.source)
    plan.repository.initialize(plan.encryption)
    return plan


def planned(folder: Path, repository: BackupRepository | None = None, **sources: FilesSource) -> BackupPlan:
    return BackupPlan(
        name="p",
        sources=sources,
        repository=repository or BackupRepository(url=str(folder / "repository")),
        encryption=NoEncryption(type="none"),
    )


def fill(state: BucketAdapter) -> None:
    for name in ("a/1", "a/2", "b", "folder/"):
        state.write(name, name.encode() if name != "folder/" else b"", ContentType="text/plain", Metadata={"n": name})


def test_its_whole_life(state: BucketAdapter, plan: BackupPlan, tmp_path: Path) -> None:
    fill(state)
    made, pictures = [], []
    for number, kind in enumerate((FULL, INCREMENTAL, DIFFERENTIAL, INCREMENTAL)):
        state.write(f"new{number}", str(number).encode())
        state.write("b", str(number).encode(), Metadata={"number": str(number)})
        made.append(make_backup(plan, kind))
        pictures.append(state.picture())
    assert [one.backup_type for one in made] == [FULL, INCREMENTAL, DIFFERENTIAL, INCREMENTAL]
    assert make_verification(plan).status is BackupStatus.VERIFIED
    state.remove("a/1")
    state.write("other", b"1")
    spoiled = state.picture()
    for backup, picture in zip(made[::-1], pictures[::-1], strict=True):
        make_restore(plan, RestoreRequest(backup.backup_id))
        assert state.picture() == picture
    make_undo(plan)
    assert state.picture() == pictures[1]
    make_restore(plan, RestoreRequest(made[0].backup_id, to=(place := state.place())))
    assert state.picture(place) == pictures[0]
    with pytest.raises(RestoreRefused, match="a bucket with 5 objects already"):
        make_restore(plan, RestoreRequest(made[0].backup_id, to=place))
    with pytest.raises(RestoreRefused, match="folder/ cannot be a file"):
        make_restore(plan, RestoreRequest(to=str(tmp_path / "folder")))
    with pytest.raises(Partial, match="entry folder/: the object folder/ cannot be a file"):
        make_restore(plan, RestoreRequest(to=str(tmp_path / "folder"), keep_going=True))
    assert (tmp_path / "folder" / "a" / "1").read_bytes() == b"a/1"
    assert spoiled != pictures[1]


def test_single_objects_are_restored_and_a_merge_is_taken_back(state: BucketAdapter, plan: BackupPlan) -> None:
    fill(state)
    backup = make_backup(plan, FULL).backup_id
    for name in ("a/1", "b"):
        state.write(name, b"changed")
    state.remove("a/2")
    state.write("a/3", b"new")
    before = state.picture()
    make_restore(plan, RestoreRequest(backup, mode=MERGE, selection=Selection(keys=("a",))))
    assert {key: state.read(key) for key in state.names()} == {
        "a/1": b"a/1", "a/2": b"a/2", "a/3": b"new", "b": b"changed", "folder/": b"",
    }  # fmt: skip
    make_undo(plan)
    assert state.picture() == before
    preview = make_restore(plan, RestoreRequest(backup, preview=True))
    assert preview is not None
    assert state.picture() == before


def test_an_emptied_bucket_is_refused(state: BucketAdapter, plan: BackupPlan) -> None:
    fill(state)
    make_backup(plan, FULL)
    state.clear()
    with pytest.raises(SourceGone, match="source uploads holds no records at all now"):
        make_backup(plan, INCREMENTAL)


def test_a_bucket_that_is_not_there_ends_with_exit_code_3(state: BucketAdapter, plan: BackupPlan) -> None:
    lost = plan.sources["uploads"].at("s3://there-is-no-such-bucket/x")
    with pytest.raises(SourceUnavailable, match="there is no bucket") as failed:
        make_backup(plan.model_copy(update={"sources": {"uploads": lost}}), FULL)
    assert failed.value.exit_code == 3


def test_a_plan_file_names_a_bucket_and_keeps_no_secret(state: BucketAdapter, tmp_path: Path) -> None:
    fill(state)
    url, settings = state.source.url, state.server.settings
    path = tmp_path / "plan.yaml"
    path.write_text(
        f"""
name: p
repository: {{url: ./repository}}
encryption: {{type: none}}
sources:
  uploads:
    type: files
    url: "{url}"
    storage:
      endpoint: "{settings.endpoint}"
      region: us-east-1
      key_id_env: {settings.key_id_env}
      secret_env: {settings.secret_env}
"""
    )
    plan = read_plan(path)
    plan.repository.initialize(plan.encryption)
    assert {settings.key_id_env, settings.secret_env} <= plan.secret_variables
    lastgood.backup(path)
    assert lastgood.verify(path).status is BackupStatus.VERIFIED
    kept = b"".join(one.read_bytes() for one in (tmp_path / "repository").rglob("*") if one.is_file())
    assert SECRET.encode() not in kept
    assert KEY_ID.encode() not in kept


@pytest.mark.parametrize(
    ("source", "repository"), [("live", "live"), ("live", "live/backups"), ("live/deep", "live"), ("", "backups")]
)
def test_a_bucket_and_its_own_repository_are_not_in_one_another(
    state: BucketAdapter, tmp_path: Path, source: str, repository: str
) -> None:
    kept = BackupRepository(url=f"s3://{state.bucket}/{repository}", storage=state.server.settings)
    with pytest.raises(ConfigurationError, match="and its own repository"):
        settle_places(planned(tmp_path, kept, uploads=state.at(source)))
    beside = BackupRepository(url=f"s3://{state.bucket}/liver", storage=state.server.settings)
    settle_places(planned(tmp_path, beside, uploads=state.at("live")))


def test_sources_do_not_share_objects(state: BucketAdapter, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="share objects"):
        settle_places(planned(tmp_path, one=state.at("live"), other=state.at("live/deep")))
    with pytest.raises(ConfigurationError, match="are one place"):
        settle_places(planned(tmp_path, one=state.at("live"), other=state.at("live/")))
    settle_places(planned(tmp_path, one=state.at("live"), other=state.at("liver")))
    settle_places(planned(tmp_path, one=state.at("live", exclude=["/deep/"]), other=state.at("live/deep")))


def test_no_restore_goes_over_others(state: BucketAdapter, tmp_path: Path) -> None:
    fill(state)
    repository = BackupRepository(url=f"s3://{state.bucket}/backups", storage=state.server.settings)
    plan = planned(tmp_path, repository, one=state.at("live"), other=state.at("other"))
    repository.initialize(plan.encryption)
    make_backup(plan, FULL)
    taken: list[tuple[str, type[LastgoodError], str]] = [
        ("backups/x", RestoreRefused, "into or around the repository"),
        ("", RestoreRefused, "around"),
        ("other", RestoreRefused, "over the live state of source other"),
        ("other/x", RestoreRefused, "into the live state of source other"),
    ]
    for place, kind, named in taken:
        request: dict[str, Any] = {"to": f"s3://{state.bucket}/{place}", "selection": Selection(collections=("one/*",))}
        with pytest.raises(kind, match=named):
            make_restore(plan, RestoreRequest(**request))
