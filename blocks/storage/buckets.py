"""Buckets of S3, and of what speaks its protocol, as a source of state: through s3fs.

s3fs opens the session and lends the thread in which its loop runs. Requests are made with its client, since what s3fs
does beyond them loses errors: deletions in batches that were refused, and writes that stopped halfway.
"""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable
from blocks.storage.bucket_errors import code_of, object_error, place_error, said_of
from blocks.storage.bucket_objects import Asked, Fetched, Listed, Lost, ObjectPlace, Stamp, Upload
from blocks.storage.bucket_urls import check_bucket, of_the_source, place_of, split_url
from blocks.storage.s3 import profile_of, s3_credentials
from blocks.storage.settings import StorageSettings

R = TypeVar("R")
Q = TypeVar("Q")

AT_ONCE = 16
"""Requests at a time."""
PIECE_BYTES = 8 * 1024 * 1024
"""What is larger is written in pieces of at least this size, and becomes visible with the last step."""
_MOST_PIECES = 10_000
_REMOVED_AT_ONCE = 1000
_CONNECT_SECONDS = 10.0

DEFAULT_TYPE = "binary/octet-stream"
"""The content type of an object that was given none."""

_HEADERS = {
    "content-type": "ContentType",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
}
_META = "meta."

# a list of keys to be deleted is XML, which has no such characters
_NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff]")


class Bucket(ObjectPlace):
    """The objects below one prefix of a bucket; nothing is asked of it before the first call.

    Args:
        url: `s3://bucket/prefix`.
        settings: How it is reached.

    Raises:
        ConfigurationError: The URL or a setting is wrong, or named credentials are not there.
    """

    def __init__(self, url: str, settings: StorageSettings) -> None:
        check_bucket(url, settings)
        self._bucket, self._prefix = split_url(url)
        self._settings = settings
        self.place = place_of(url, settings)
        self._versioned = False
        self._running: set[Future[Any]] = set()
        self._closed = False
        with of_the_source():
            self._files = _opened(settings)

    def list(self) -> Listed:
        """List all objects below the prefix."""
        return self._run(self._list())

    def fetch(self, asked: Sequence[Asked]) -> Sequence[Fetched | Lost]:
        """Read objects, several at once."""
        return self._run(self._each(self._fetch, asked))

    def look(self, keys: Sequence[str]) -> Sequence[Fetched | Lost]:
        """Look at objects, several at once."""
        return self._run(self._each(self._look, keys))

    def put(self, uploads: Sequence[Upload]) -> Sequence[tuple[str, str]]:
        """Write objects, several at once."""
        failed = self._run(self._each(self._put, uploads))
        return [(upload.key, reason) for upload, reason in zip(uploads, failed, strict=True) if reason is not None]

    def remove(self, keys: Sequence[str]) -> Sequence[tuple[str, str]]:
        """Delete objects in batches, and look at what the storage says of each."""
        plain = [key for key in keys if not _NOT_IN_XML.search(key)]
        odd = [key for key in keys if _NOT_IN_XML.search(key)]
        batches = [plain[at : at + _REMOVED_AT_ONCE] for at in range(0, len(plain), _REMOVED_AT_ONCE)]
        failed = [one for batch in self._run(self._each(self._remove_batch, batches)) for one in batch]
        singly = self._run(self._each(self._remove_one, odd))
        return [*failed, *((key, reason) for key, reason in zip(odd, singly, strict=True) if reason is not None)]

    def close(self) -> None:
        """End what is being read; s3fs closes its connections when it is let go."""
        self._closed = True
        for future in builtins.list(self._running):
            future.cancel()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do some work in the loop's thread; it ends with who waits for it."""
        if self._closed:
            work.close()
            raise SourceUnavailable(f"{self.place} is not read any more", hint="The work was given up.")
        future = asyncio.run_coroutine_threadsafe(_translated(work, self.place), self._files.loop)
        self._running.add(future)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            if self._closed:
                raise SourceUnavailable(f"{self.place} is not read any more", hint="The work was given up.") from None
            raise
        finally:
            self._running.discard(future)

    async def _each(self, work: Callable[[Q], Awaitable[R]], items: Sequence[Q]) -> builtins.list[R]:
        """Do something with each, several at once; the first error ends all of it."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(item: Q) -> R:
            async with gate:
                return await work(item)

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            return builtins.list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _client(self) -> Any:
        return await self._files.set_session()

    async def _list(self) -> Listed:
        from botocore.exceptions import ClientError

        client = await self._client()
        self._versioned = await self._keeps_versions(client)
        if self._versioned:
            try:
                return await self._pages(client, "list_object_versions", "Versions")
            except ClientError as exc:
                if code_of(exc)[1] != 403:  # else it may be listed without its versions
                    raise
                self._versioned = False
        return await self._pages(client, "list_objects_v2", "Contents")

    async def _keeps_versions(self, client: Any) -> bool:
        from botocore.exceptions import ClientError

        try:
            found = await client.get_bucket_versioning(Bucket=self._bucket)
        except ClientError:  # that may be forbidden, or not known; what else is wrong shows in the listing
            return False
        return found.get("Status") in ("Enabled", "Suspended")

    async def _pages(self, client: Any, request: str, field: str) -> Listed:
        objects: dict[str, Stamp] = {}
        at: int | None = None
        async for page in client.get_paginator(request).paginate(Bucket=self._bucket, Prefix=self._prefix):
            at = _moment(page) if at is None else at
            for one in page.get(field) or ():
                if one.get("IsLatest", True):
                    objects[one["Key"][len(self._prefix) :]] = self._stamp(one, one["Size"])
        return Listed(objects, at or 0)

    def _stamp(self, said: Mapping[str, Any], size_bytes: int) -> Stamp:
        version = str(said.get("VersionId") or "null") if self._versioned else ""
        # some storages give fractions of a second in listings only
        modified = int(said["LastModified"].timestamp())
        return Stamp(size_bytes, str(said.get("ETag", "")).strip('"'), version, modified)

    async def _fetch(self, asked: Asked) -> Fetched | Lost:
        import aiohttp
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        cut = (aiohttp.ClientError, HTTPClientError, IncompleteReadError, TimeoutError)
        for attempt in range(self._settings.attempts):
            try:
                return await self._fetch_once(asked)
            except ClientError as exc:
                if code_of(exc)[1] == 416:  # it ends before
                    return await self._look(asked.key)
                return object_error(exc, self.place)
            except cut:
                if attempt + 1 == self._settings.attempts:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("there is at least one attempt")

    async def _fetch_once(self, asked: Asked) -> Fetched:
        client = await self._client()
        span = {}
        if asked.start or asked.stop is not None:
            span = {"Range": f"bytes={asked.start}-{'' if asked.stop is None else asked.stop - 1}"}
        answer = await client.get_object(Bucket=self._bucket, Key=self._prefix + asked.key, **span)
        async with answer["Body"] as body:
            data = await body.read()
        if len(data) != answer["ContentLength"]:
            raise TimeoutError("the answer was cut off")
        return self._fetched(answer, data)

    async def _look(self, key: str) -> Fetched | Lost:
        from botocore.exceptions import ClientError

        client = await self._client()
        try:
            return self._fetched(await client.head_object(Bucket=self._bucket, Key=self._prefix + key), b"")
        except ClientError as exc:
            return object_error(exc, self.place)

    def _fetched(self, answer: Mapping[str, Any], data: bytes) -> Fetched:
        whole = str(answer.get("ContentRange") or "").rpartition("/")[2]
        size_bytes = int(whole) if whole.isdigit() else int(answer["ContentLength"])
        return Fetched(self._stamp(answer, size_bytes), _attributes(answer), data, _moment(answer))

    async def _put(self, upload: Upload) -> str | None:
        from botocore.exceptions import ClientError, ParamValidationError

        client = await self._client()
        options = {"Bucket": self._bucket, "Key": self._prefix + upload.key}
        try:
            if upload.size_bytes <= PIECE_BYTES:
                body = _read(upload.path, 0, upload.size_bytes)
                await client.put_object(**options, **self._headers(upload.attributes), Body=body)
            else:
                await self._put_in_pieces(client, upload, options)
        except ClientError as exc:
            lost = object_error(exc, self.place)
            return lost.reason or said_of(exc)
        except ParamValidationError as exc:
            return " ".join(str(exc).split())[:300]
        return None

    async def _put_in_pieces(self, client: Any, upload: Upload, options: Mapping[str, str]) -> None:
        begun = await client.create_multipart_upload(**options, **self._headers(upload.attributes))
        step = max(PIECE_BYTES, -(-upload.size_bytes // _MOST_PIECES))
        try:
            parts = []
            for number, start in enumerate(range(0, upload.size_bytes, step), 1):
                body = _read(upload.path, start, min(step, upload.size_bytes - start))
                done = await client.upload_part(**options, UploadId=begun["UploadId"], PartNumber=number, Body=body)
                parts.append({"ETag": done["ETag"], "PartNumber": number})
            await client.complete_multipart_upload(
                **options, UploadId=begun["UploadId"], MultipartUpload={"Parts": parts}
            )
        except BaseException:
            # nothing of it is visible; its pieces would be paid for until somebody removes them
            await asyncio.gather(
                client.abort_multipart_upload(**options, UploadId=begun["UploadId"]), return_exceptions=True
            )
            raise

    def _headers(self, attributes: Mapping[str, str]) -> dict[str, Any]:
        given: dict[str, Any] = {"ContentType": DEFAULT_TYPE}
        given |= {_HEADERS[name]: value for name, value in attributes.items() if name in _HEADERS}
        if own := {name[len(_META) :]: value for name, value in attributes.items() if name.startswith(_META)}:
            given["Metadata"] = own
        ours = {
            "StorageClass": self._settings.storage_class,
            "ServerSideEncryption": self._settings.server_side_encryption,
            "SSEKMSKeyId": self._settings.kms_key,
        }
        return given | {name: value for name, value in ours.items() if value is not None}

    async def _remove_batch(self, keys: Sequence[str]) -> builtins.list[tuple[str, str]]:
        client = await self._client()
        wanted = [{"Key": self._prefix + key} for key in keys]
        answer = await client.delete_objects(Bucket=self._bucket, Delete={"Objects": wanted, "Quiet": True})
        return [
            (
                str(one.get("Key", ""))[len(self._prefix) :],
                " ".join(filter(None, (one.get("Code"), one.get("Message")))),
            )
            for one in answer.get("Errors") or ()
        ]

    async def _remove_one(self, key: str) -> str | None:
        from botocore.exceptions import ClientError

        client = await self._client()
        try:
            await client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as exc:
            return object_error(exc, self.place).reason
        return None


async def _translated(work: Coroutine[Any, Any, R], place: str) -> R:
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return await work
    except LastgoodError:
        raise
    except (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
        raise place_error(exc, place) from exc


def _opened(settings: StorageSettings) -> Any:
    """Open s3fs; it is imported here because it takes long, and only who has a bucket needs it."""
    import aiobotocore.session
    import s3fs
    from botocore.exceptions import BotoCoreError

    config = {
        "connect_timeout": min(_CONNECT_SECONDS, settings.timeout_seconds),
        "read_timeout": settings.timeout_seconds,
        "retries": {"mode": "standard", "max_attempts": settings.attempts},
        "s3": {"addressing_style": "path" if settings.in_path else "auto"},
        "max_pool_connections": 2 * AT_ONCE,
        # the defaults are not understood by storages that are not AWS' own
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    options: dict[str, Any] = {}
    if settings.credentials_block or settings.names_keys:
        provider = s3_credentials(settings)
        assert provider is not None
        given: Any = provider()
        options = {"key": given["access_key_id"], "secret": given["secret_access_key"], "token": given["token"]}
    elif settings.profile or settings.credentials_file:
        try:
            session = aiobotocore.session.AioSession(profile=profile_of(settings))
            if settings.credentials_file:
                session.set_config_variable("credentials_file", str(settings.credentials_file))
            _ = session.full_config, session.get_scoped_config()
        except BotoCoreError as exc:
            raise ConfigurationError(f"storage.profile: {exc}", hint="Name a profile that there is.") from exc
        options = {"session": session}
    return s3fs.S3FileSystem(
        endpoint_url=settings.endpoint,
        client_kwargs={"region_name": settings.region} if settings.region else {},
        config_kwargs=config,
        # an instance of its own, which remembers nothing: who asks wants to know what is there now
        skip_instance_cache=True,
        use_listings_cache=False,
        **options,
    )


def _attributes(answer: Mapping[str, Any]) -> dict[str, str]:
    found = {name: str(answer[field]) for name, field in _HEADERS.items() if answer.get(field)}
    if found.get("content-type") == DEFAULT_TYPE:
        del found["content-type"]
    # how a client sent it, which storages keep by mistake
    encodings = [one.strip() for one in found.pop("content-encoding", "").split(",")]
    if kept := ",".join(one for one in encodings if one and one != "aws-chunked"):
        found["content-encoding"] = kept
    return found | {f"{_META}{name.lower()}": str(value) for name, value in (answer.get("Metadata") or {}).items()}


def _moment(answer: Mapping[str, Any]) -> int:
    """Return the time of an answer by the storage's clock; 0, which proves nothing, where it does not say."""
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        moment: datetime = parsedate_to_datetime(said)
    except (TypeError, ValueError):
        return 0
    return int(moment.timestamp())


def _read(path: bytes, start: int, size_bytes: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size_bytes)
