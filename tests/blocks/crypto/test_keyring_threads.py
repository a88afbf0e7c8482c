"""Two flows in one process open a repository at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from blocks.crypto.keyring import Credential, Keyring
from blocks.repository.block import BackupRepository


@pytest.mark.timeout(60)
def test_threads_that_stretch_a_passphrase_at_once_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    settings = Keyring(credential=Credential(passphrase_file=tmp_path / "passphrase"))
    repository = BackupRepository(url=str(tmp_path / "backups"))
    kit = repository.initialize(settings)
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: repository.unlock(settings).repository_id, range(8)))
    assert opened == [kit.repository_id] * 8
