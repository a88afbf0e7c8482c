"""Plans as blocks: saved with their typed nested blocks, found by name, run by name, with no secret in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prefect_aws import AwsCredentials

from blocks.crypto.keyring import Keyring
from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan, load_plan
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.sqlite import SQLiteSource
from blocks.storage.s3 import s3_credentials
from blocks.storage.settings import StorageSettings
from flows import backup, restore
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan

pytestmark = pytest.mark.usefixtures("prefect")


def saved(plan: BackupPlan, name: str) -> BackupPlan:
    """Save a plan and load it back by its name."""
    plan.save(name, overwrite=True, _sync=True)  # type: ignore[call-arg]
    return load_plan(name)


def document(prefect: Prefect, name: str) -> dict[str, object]:
    """The saved plan as the server keeps it, secrets included."""
    found: dict[str, object] = prefect.get(
        f"/block_types/slug/backup-plan/block_documents/name/{name}?include_secrets=true"
    )
    return found


def test_a_saved_plan_loads_back_equal_with_its_typed_blocks(small_plan: SmallPlan) -> None:
    plan = small_plan.plan.model_copy(
        update={"retention": small_plan.plan.retention.model_copy(update={"full": small_plan.plan.retention.snapshot})}
    )
    loaded = saved(plan, "equal")
    assert loaded.model_dump() == plan.model_dump()
    assert [type(source) for source in loaded.sources.values()] == [SQLiteSource, FilesSource]
    assert (type(loaded.repository), type(loaded.encryption)) == (BackupRepository, Keyring)


def test_a_plan_refers_to_a_repository_that_was_saved_on_its_own(
    prefect: Prefect, small_plan: SmallPlan, tmp_path: Path
) -> None:
    repository = BackupRepository(url=str(tmp_path / "one"))
    repository.save("shared", overwrite=True, _sync=True)
    shared = BackupRepository.load("shared", _sync=True)
    loaded = saved(small_plan.plan.model_copy(update={"repository": shared}), "referring")
    assert type(loaded.repository) is BackupRepository
    assert loaded.repository.url == str(tmp_path / "one")
    assert "repository" in document(prefect, "referring")["block_document_references"]  # type: ignore[operator]
    BackupRepository(url=str(tmp_path / "two")).save("shared", overwrite=True, _sync=True)
    assert load_plan("referring").repository.url == str(tmp_path / "two")


def test_no_secret_is_in_a_saved_plan(prefect: Prefect, small_plan: SmallPlan) -> None:
    saved(small_plan.plan, "discreet")
    kept = json.dumps(document(prefect, "discreet"))
    assert str(small_plan.folder / "passphrase") in kept
    assert "correct horse" not in kept


def test_flows_run_with_a_plan_by_its_name(small_plan: SmallPlan) -> None:
    saved(small_plan.plan, "by-its-name")
    made = backup("by-its-name", "full")
    assert made.backup_id == small_plan.backups()[0].backup_id
    small_plan.execute("DELETE FROM orders")
    restore("by-its-name", mode="exact")
    assert len(small_plan.quantities()) == 100


def test_a_name_that_nobody_saved_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigurationError, match="no saved plan named 'nobody'") as refused:
        load_plan("nobody")
    assert "plan save" in refused.value.hint


def test_a_storage_takes_its_credentials_from_a_block_of_aws(prefect: Prefect, small_plan: SmallPlan) -> None:
    secret = "a-secret-key-of-a-block"
    block = AwsCredentials(aws_access_key_id="id", aws_secret_access_key=secret, aws_session_token="token")
    block.save("backups", overwrite=True, _sync=True)
    settings = StorageSettings(credentials_block="aws-credentials/backups")
    found = s3_credentials(settings)
    assert found is not None
    assert found() == {"access_key_id": "id", "secret_access_key": secret, "token": "token", "expires_at": None}
    repository = BackupRepository(url="s3://bucket/x", storage=settings)
    plan = saved(small_plan.plan.model_copy(update={"repository": repository}), "in-a-bucket")
    assert plan.repository.storage.model_dump() == settings.model_dump()
    assert secret not in json.dumps(document(prefect, "in-a-bucket")) + repr(plan) + plan.model_dump_json()


@pytest.mark.parametrize("name", ["aws-credentials/none", "no-such-type/none", "none"])
def test_a_block_with_credentials_that_is_not_there_is_said_by_field(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"repository\.storage\.credentials_block: .*" + name) as caught:
        s3_credentials(StorageSettings(credentials_block=name))
    assert "type/name" in caught.value.hint


def test_a_block_without_keys_is_said_by_field() -> None:
    AwsCredentials(region_name="eu-west-1").save("empty", overwrite=True, _sync=True)
    with pytest.raises(ConfigurationError, match="aws-credentials/empty holds no access key"):
        s3_credentials(StorageSettings(credentials_block="aws-credentials/empty"))


def test_a_plan_with_a_source_of_another_package_is_saved_and_run_by_its_name(prefect: Prefect, tmp_path: Path) -> None:
    """As processes of their own: what is saved, is loaded by one that has not read the plan's file."""
    example, said = ROOT / "docs" / "examples" / "lastgood-example", tmp_path / "site" / "example-1.0.dist-info"
    said.mkdir(parents=True)
    (said / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    added = "[lastgood.sources]\njsonlines = lastgood_example.source:JSONLinesSource\n"
    (said / "entry_points.txt").write_text(added)
    (tmp_path / "lines.jsonl").write_text('{"key": "a"}\n')
    plan = tmp_path / "plan.yaml"
    sources = "{lines: {type: jsonlines, path: lines.jsonl}}"
    plan.write_text(f"name: lines\nsources: {sources}\nrepository: {{url: backups}}\nencryption: none\n")
    environment = prefect.environment() | {"PYTHONPATH": f"{said.parent}:{example}:{ROOT}"}

    def run(*words: str) -> str:
        script = "import sys; from lastgood import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("init", str(plan))
    run("plan", "save", str(plan))
    made = json.loads(run("backup", "lines", "--type", "full", "--json"))
    assert made["rows"] == 1
