"""What tiers make of a network and of a storage that fail, and of what real storages say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError

from blocks.errors import (
    AlreadyExists,
    ConfigurationError,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
    StorageRefused,
    StorageUnreachable,
)
from blocks.storage.attempts import Transient
from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.object_errors import classified
from blocks.storage.settings import StorageSettings
from tests.cloud_servers import ACCOUNT_KEY_ENV, Azurite, Google
from tests.fault_proxy import Fault, FaultProxy, Reply
from tests.object_servers import KEY_ID_ENV, READER_ID, READER_SECRET, SECRET_ENV, Seaweed


@pytest.fixture
def opened(s3: Seaweed, proxy: FaultProxy) -> Callable[..., StorageTier]:
    """Opens a tier behind the proxy, with settings."""
    bucket = s3.bucket()

    def tier(**settings: object) -> StorageTier:
        through = s3.settings.model_copy(update={"endpoint": proxy.endpoint, **settings})
        return open_tier(f"s3://{bucket}/repository", through)

    return tier


@pytest.fixture
def tier(opened: Callable[..., StorageTier]) -> StorageTier:
    return opened()


# A network that fails


def test_an_object_whose_reply_got_lost_is_found_to_be_ours(tier: StorageTier, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("lose the reply", "PUT", times=1))
    tier.put("object", b"ours", exclusive=True)
    assert proxy.count("PUT") == 2
    assert tier.get("object") == b"ours"
    proxy.faults.append(Fault("lose the reply", "PUT", times=1))
    tier.put("object", b"replaced")
    assert tier.get("object") == b"replaced"


def test_an_object_of_another_is_never_taken_for_ours(tier: StorageTier, proxy: FaultProxy) -> None:
    tier.put("object", b"theirs")
    for faults in ([Fault("lose the reply", "PUT", times=1)], [Fault("answer", "PUT", times=1)]):
        proxy.faults[:] = faults
        with pytest.raises(AlreadyExists, match="object"):
            tier.put("object", b"ours, later", exclusive=True)
    assert tier.get("object") == b"theirs"


def test_an_object_that_vanished_while_it_was_looked_at_was_not_ours(tier: StorageTier, proxy: FaultProxy) -> None:
    tier.put("object", b"theirs")
    proxy.faults.append(Fault("answer", "HEAD", reply=Reply(404)))
    with pytest.raises(AlreadyExists, match="object"):
        tier.put("object", b"theirs", exclusive=True)


def test_a_removal_whose_reply_got_lost_is_repeated(tier: StorageTier, proxy: FaultProxy) -> None:
    for name in ("a/1", "a/2", "b"):
        tier.put(name, b"")
    proxy.faults += [Fault("lose the reply", "POST", times=1), Fault("lose the reply", "DELETE", times=1)]
    tier.remove(["a/1", "a/2"])
    tier.remove(["b"])
    assert tier.list() == []


@pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 1000), (500, 1000), (500, None)])
def test_an_answer_that_was_cut_off_is_asked_for_again_and_never_returned_short(
    tier: StorageTier, proxy: FaultProxy, offset: int, length: int | None
) -> None:
    data = bytes(range(250)) * 10
    tier.put("object", data)
    proxy.faults.append(Fault("cut the body", "GET", "object", times=2))
    whole = data[offset : None if length is None else offset + length]
    assert tier.get("object", offset, length) == whole
    assert proxy.count("GET", "object") == 3
    proxy.faults.append(Fault("cut the body", "GET", "object"))
    with pytest.raises(StorageUnreachable, match=r"object.*\(3 attempts\)"):
        tier.get("object", offset, length)


def test_a_listing_that_was_cut_off_is_asked_for_again(tier: StorageTier, proxy: FaultProxy) -> None:
    for name in ("a", "b", "c"):
        tier.put(name, b"")
    proxy.faults.append(Fault("cut the body", "GET", "list-type", times=1))
    assert [stored.name for stored in tier.list()] == ["a", "b", "c"]
    assert proxy.count("GET", "list-type") == 2


def test_no_call_waits_for_longer_than_is_said(opened: Callable[..., StorageTier], proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("hang", "GET"))
    with pytest.raises(StorageUnreachable, match=r"timed? ?out.*\(2 attempts\)"):
        opened(timeout_seconds=0.2, attempts=2).get("object")
    assert proxy.count("GET") == 2


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_attempts_are_counted_exactly(opened: Callable[..., StorageTier], proxy: FaultProxy, attempts: int) -> None:
    tier = opened(attempts=attempts)
    proxy.faults.append(Fault("answer", "PUT"))
    with pytest.raises(StorageUnreachable, match=rf"503 \({attempts} attempts?\)"):
        tier.put("object", b"", exclusive=True)
    assert proxy.requests == [("PUT", proxy.requests[0][1])] * attempts


def test_a_storage_that_is_down_is_told_by_the_attempts_that_were_made(s3: Seaweed) -> None:
    down = s3.settings.model_copy(update={"endpoint": "http://127.0.0.1:1", "retry_seconds": 0.0})
    with pytest.raises(StorageUnreachable, match=r"connection refused.*\(1 attempt\)") as caught:
        open_tier("s3://bucket/x", down).get("object")
    assert caught.value.hint


@contextmanager
def _answering(answer: bytes) -> Iterator[str]:
    """A server that answers everything with the same bytes; none: it closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("scheme", "answer", "words"),
    [
        ("http", b"", "the connection was cut"),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP: is it https:// there?"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server speaks no TLS: is it http:// there?"),
    ],
)
def test_a_server_that_is_no_object_store_is_told_in_a_few_words(
    s3: Seaweed, scheme: str, answer: bytes, words: str
) -> None:
    with _answering(answer) as address:
        wrong = s3.settings.model_copy(update={"endpoint": f"{scheme}://{address}", "attempts": 1})
        with pytest.raises(StorageUnreachable) as caught:
            open_tier("s3://bucket/x", wrong).get("object")
    place = f"s3://bucket/x at {scheme}://{address}"
    assert caught.value.message == f"cannot read object in {place}: {words} (1 attempt)"


def test_a_bucket_in_the_endpoint_leads_to_the_endpoint(s3: Seaweed) -> None:
    bucket = s3.bucket()
    twice = s3.settings.model_copy(update={"endpoint": f"{s3.endpoint}/{bucket}"})
    with pytest.raises(RepositoryUnavailable, match="404") as caught:
        open_tier(f"s3://{bucket}/x", twice).prepare()
    assert "the bucket is in `url`" in caught.value.hint


def test_a_batch_is_not_removed_one_by_one_where_nobody_answers(tier: StorageTier, proxy: FaultProxy) -> None:
    proxy.faults += [Fault("answer", "POST"), Fault("answer", "DELETE")]
    with pytest.raises(RepositoryUnavailable, match=r"could not remove a/0, a/1.* and 80 more: "):
        tier.remove([f"a/{number}" for number in range(100)])
    assert [method for method, _ in proxy.requests] == ["POST"] * 3


def test_what_cannot_be_removed_is_named_and_all_else_is_gone(tier: StorageTier, proxy: FaultProxy) -> None:
    for name in ("a/1", "a/stuck", "a/2", "a/kept"):
        tier.put(name, b"")
    for name in ("stuck", "kept"):
        error = f"<Error><Key>repository/a/{name}</Key><Code>AccessDenied</Code><Message>Access</Message></Error>"
        answer = Reply(200, {"Content-Type": "application/xml"}, f"<DeleteResult>{error}</DeleteResult>".encode())
        proxy.faults.append(Fault("answer", "POST", "delete", inside=f"a/{name}<".encode(), reply=answer))
    with pytest.raises(RepositoryUnavailable, match=r"could not remove a/stuck, a/kept: .*Access"):
        tier.remove(["a/1", "a/stuck", "a/2", "a/kept", "a/never"])
    assert [stored.name for stored in tier.list()] == ["a/kept", "a/stuck"]
    with pytest.raises(RepositoryUnavailable, match="could not remove a/stuck"):
        tier.remove(["a/stuck"])


# What storages say


def said(code: str, message: str = "It says why.") -> bytes:
    return f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


MALFORMED = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-central-1'"


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        (301, "PermanentRedirect", ConfigurationError, r"storage\.region: .* another region"),
        (400, "AuthorizationHeaderMalformed", ConfigurationError, r"storage\.region: .*expecting 'eu-central-1'"),
        (400, "ExpiredToken", StorageRefused, "ExpiredToken"),
        (400, "InvalidToken", StorageRefused, "InvalidToken"),
        (400, "InvalidArgument", RepositoryUnavailable, "400 InvalidArgument"),
        (403, "AccessDenied", StorageRefused, "403 AccessDenied"),
        (403, "InvalidAccessKeyId", StorageRefused, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", StorageRefused, "SignatureDoesNotMatch"),
        (403, "RequestTimeTooSkewed", StorageRefused, "RequestTimeTooSkewed"),
        (403, "InvalidObjectState", ObjectUnreadable, "InvalidObjectState"),
        (404, "NoSuchBucket", ConfigurationError, r"repository\.url: there is no bucket"),
        (404, "NoSuchKey", ObjectMissing, "object is not there"),
        (507, "XMinioStorageFull", RepositoryFull, "507"),
        (501, "NotImplemented", RepositoryUnavailable, "501 NotImplemented"),
    ],
)
def test_what_is_an_answer_is_told_apart_at_once(
    tier: StorageTier, proxy: FaultProxy, status: int, code: str, error: type[LastgoodError], words: str
) -> None:
    body = said(code, MALFORMED if "Malformed" in code else "It says why.")
    proxy.faults.append(Fault("answer", "GET", reply=Reply(status, {}, body)))
    with pytest.raises(error, match=words) as caught:
        tier.get("object")
    assert type(caught.value) is error
    assert proxy.count("GET") == 1
    if error is not ObjectMissing:
        assert caught.value.hint


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"), (500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooManyRequests"),
        (400, "BadDigest"), (400, "XAmzContentSHA256Mismatch"), (400, "RequestTimeout"), (400, "IncompleteBody"),
        (409, "OperationAborted"), (409, "ConditionalRequestConflict"), (502, "BadGateway"), (504, "GatewayTimeout"),
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(tier: StorageTier, proxy: FaultProxy, status: int, code: str) -> None:
    proxy.faults.append(Fault("answer", "PUT", reply=Reply(status, {}, said(code)), times=1))
    tier.put("object", b"data", exclusive=True)
    assert proxy.count("PUT") == 2
    assert tier.get("object") == b"data"


def test_a_redirect_that_leads_nowhere_is_another_region(tier: StorageTier, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("answer", "HEAD", reply=Reply(301, {"x-amz-bucket-region": "eu-central-1"})))
    with pytest.raises(ConfigurationError, match=r"repository\.storage\.region"):
        tier.size("object")


def test_a_refusal_without_words_may_be_of_credentials_that_expired(tier: StorageTier, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("answer", "HEAD", reply=Reply(403, {})))
    with pytest.raises(StorageRefused, match=r"403$") as caught:
        tier.size("object")
    assert "expired" in caught.value.hint


def azure(status: str, code: str, message: str) -> str:
    """What obstore says of an answer of Azure."""
    body = f"<Error>\n  <Code>{code}</Code>\n  <Message>{message}\nRequestId:1\nTime:2</Message>\n</Error>"
    return f"Generic MicrosoftAzure error: Error performing PUT http://h/x in 7ms - Server returned non-2xx status code: {status}: {body}\n\nDebug source:\n"  # noqa: E501


@pytest.mark.parametrize(
    ("kind", "text", "error", "words"),
    [
        (GenericError, azure("403 Forbidden", "AuthenticationFailed", "Server failed."), StorageRefused, "403 Auth"),
        (GenericError, azure("404 Not Found", "ContainerNotFound", "None."), ConfigurationError, r"repository\.url"),
        (GenericError, azure("503 Service Unavailable", "ServerBusy", "Later."), Transient, "503 ServerBusy Later"),
        (AlreadyExistsError, azure("409 Conflict", "BlobArchived", "Archived."), ObjectUnreadable, "BlobArchived"),
        (AlreadyExistsError, azure("412 Precondition", "LeaseIdMissing", "A lease."), StorageRefused, "LeaseIdMissing"),
        (AlreadyExistsError, azure("409 Conflict", "BlobImmutableDueToPolicy", "No."), StorageRefused, "Immutable"),
        (AlreadyExistsError, azure("409 Conflict", "BlobAlreadyExists", "There."), AlreadyExists, "exists already"),
        (
            GenericError,
            "Generic GCS error: Error performing token request: Error performing GET http://169.254.169.254/computeMetadata"
            " in 1ms - Server returned non-2xx status code: 403 Forbidden: denied",
            StorageRefused,
            "no credentials for gs://b were found",
        ),
        (
            GenericError,
            "Generic S3 error: Error performing GET http://h/credentials/x in 1ms - HTTP error: error sending request",
            Transient,
            "cannot read a",
        ),
        (
            GenericError,
            "Generic GCS error: Error performing list request: Error performing GET https://h/nothere in 7ms - "
            "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchBucket</Code><Message>"
            "The specified bucket does not exist.</Message></Error>",
            ConfigurationError,
            r"repository\.url: there is no bucket",
        ),
    ],
)  # fmt: skip
def test_what_other_storages_say_is_told_apart(
    kind: type[Exception], text: str, error: type[Exception], words: str
) -> None:
    found = classified(kind(text), "read", "a", "gs://b")
    assert type(found) is error
    with pytest.raises(error, match=words):
        raise found


# Places and credentials that are wrong, on real servers


def test_a_container_that_is_not_there_is_said(az: Azurite, gs: Google, s3: Seaweed) -> None:
    for url, settings in (("az://not-there/x", az.settings), ("s3://not-there/x", s3.settings)):
        tier = open_tier(url, settings)
        attempts = (tier.prepare, tier.list, lambda tier=tier: tier.get("a"), lambda tier=tier: tier.put("a", b""))
        for attempt in attempts[: 3 if url.startswith("s3") else 4]:
            with pytest.raises(ConfigurationError, match=r"repository\.url: there is no bucket or container at"):
                attempt()


def test_a_wrong_key_is_refused(az: Azurite, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"az://{az.bucket()}/x"
    monkeypatch.setenv(ACCOUNT_KEY_ENV, "YWJj" * 21 + "YWI=")
    with pytest.raises(StorageRefused, match="AuthorizationFailure") as caught:
        open_tier(url, az.settings).put("a", b"")
    assert "key is wrong" in caught.value.hint
    monkeypatch.setenv(ACCOUNT_KEY_ENV, "no base64")
    with pytest.raises(ConfigurationError, match=r"repository\.storage\.secret_env"):
        open_tier(f"{url}/y", az.settings)


def test_credentials_that_may_only_read_are_refused_where_they_write(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    open_tier(f"s3://{bucket}/x", s3.settings).put("object", b"data")
    monkeypatch.setenv(KEY_ID_ENV, READER_ID)
    monkeypatch.setenv(SECRET_ENV, READER_SECRET)
    reader = open_tier(f"s3://{bucket}/x", s3.settings.model_copy(update={"attempts": 2}))
    assert reader.get("object") == b"data"
    assert [stored.name for stored in reader.list()] == ["object"]
    for attempt in (lambda: reader.put("other", b""), lambda: reader.put("object", b"", exclusive=True)):
        with pytest.raises(StorageRefused, match="403 AccessDenied"):
            attempt()
    with pytest.raises(RepositoryUnavailable, match=r"could not remove object: .*\(code: AccessDenied\)"):
        reader.remove(["object"])


def test_a_server_that_was_killed_has_what_was_put(s3: Seaweed) -> None:
    tier = s3.tier()
    tier.put("a/object", b"data" * 1000, exclusive=True)
    s3.kill()
    with pytest.raises(StorageUnreachable):
        tier.get("a/object")
    s3.start()
    assert tier.get("a/object") == b"data" * 1000
    assert [stored.name for stored in tier.list()] == ["a/object"]


def test_an_archived_object_is_unreadable_and_not_missing(az: Azurite) -> None:
    url = f"az://{az.bucket()}/x"
    archive = open_tier(url, az.settings.model_copy(update={"storage_class": "Archive"}))
    archive.put("object", b"data", exclusive=True)
    with pytest.raises(ObjectUnreadable, match="BlobArchived") as caught:
        open_tier(url, az.settings).get("object")
    assert "restore" in caught.value.hint
    assert archive.size("object") == 4


@pytest.mark.parametrize(
    ("url", "more", "header"),
    [
        ("az://cont/x", {"account": "devstoreaccount1", "secret_env": ACCOUNT_KEY_ENV}, "x-ms-access-tier"),
        ("gs://bucket/x", {}, "x-goog-storage-class"),
        ("s3://bucket/x", {"key_id_env": KEY_ID_ENV, "secret_env": SECRET_ENV}, "x-amz-storage-class"),
    ],
)
def test_new_objects_have_the_class_that_is_named(
    proxy: FaultProxy, az: Azurite, url: str, more: dict[str, str], header: str
) -> None:
    proxy.faults.append(Fault("answer", "PUT", reply=Reply(403)))
    tier = open_tier(url, StorageSettings(endpoint=proxy.endpoint, storage_class="NAMED", **more))
    with pytest.raises(StorageRefused):
        tier.put("object", b"data")
    assert proxy.headers[-1][header] == "NAMED"
