from __future__ import annotations

import pytest

from blocks.errors import AlreadyExists, ConfigurationError, StorageRefused, StorageUnreachable
from blocks.storage.kinds import open_tier, scheme_of
from tests.object_servers import SECRET_ENV, Seaweed


def test_objects_are_put_once_listed_read_by_range_and_removed(s3: Seaweed) -> None:
    tier = s3.tier()
    tier.prepare()
    tier.put("a/b", b"0123456789", exclusive=True)
    tier.put("a/b", b"0123456789", exclusive=True)
    with pytest.raises(AlreadyExists):
        tier.put("a/b", b"other", exclusive=True)
    assert (tier.get("a/b"), tier.get("a/b", 3, 4), tier.get("a/b", 8, 9), tier.get("a/b", 20, 5)) == (
        b"0123456789", b"3456", b"89", b"",
    )  # fmt: skip
    assert [(one.name, one.size_bytes) for one in tier.list("a/")] == [("a/b", 10)]
    assert tier.folders("") == ["a"]
    tier.remove(["a/b", "a/none"])
    assert not tier.exists("a/b")


def test_what_is_wrong_with_a_place_is_said_by_field(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"repository\.url: there is no bucket"):
        open_tier("s3://no-such-bucket/x", s3.settings).prepare()
    bucket = s3.bucket()
    monkeypatch.setenv(SECRET_ENV, "wrong")
    with pytest.raises(StorageRefused, match="SignatureDoesNotMatch"):
        open_tier(f"s3://{bucket}/x", s3.settings.model_copy(update={"region": "eu-central-1"})).prepare()
    down = s3.settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(StorageUnreachable, match=r"\(3 attempts\)"):
        open_tier(f"s3://{bucket}/x", down).prepare()


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "s3://key:secret@bucket/x", "s3://key@bucket/x", "s3://bucket/x?secret_key=1", "s3::x"]
)
def test_urls_that_are_none_or_hold_credentials_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"repository\.url"):
        scheme_of(url)
