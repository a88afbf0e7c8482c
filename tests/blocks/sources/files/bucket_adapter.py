"""Buckets as the conformance suite wants them, for the tests that are run with one; and the means to look at them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.files import FilesSource
from blocks.sources.source import StateSource
from tests.conformance.suite import Fault, Picture, SourceAdapter, Unbuildable
from tests.object_servers import KEY_ID, SECRET, Seaweed

MIB = 1 << 20


def client_of(server: Seaweed) -> Any:
    """Open a client that owes nothing to the source's."""
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
    )
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET, config=config,
    )  # fmt: skip


class BucketAdapter(SourceAdapter):
    """Objects below a prefix; `fill` adds odd keys, metadata, and one of several pieces."""

    name = "bucket"

    def __init__(self, folder: Path, shared: Seaweed) -> None:
        super().__init__(folder, shared)
        self.server, self.bucket = shared, shared.bucket()
        self.client = client_of(shared)
        self.prefix = "live/"
        # beside the prefix, and none of its business
        self.client.put_object(Bucket=self.bucket, Key="lively", Body=b"beside")

    @property
    def source(self) -> FilesSource:
        return self.at("live")

    def at(self, prefix: str, **fields: Any) -> FilesSource:
        url = f"s3://{self.bucket}/{prefix}"
        return FilesSource(url=url, storage=self.server.settings, part_size_bytes=MIB, **fields)

    def write(self, key: str, content: bytes, **headers: Any) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=content, **headers)

    def read(self, key: str, prefix: str = "live/") -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=prefix + key)["Body"].read()
        return content

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        self.write("deep/folder", b"a file and a folder")
        self.write("deep/folder/inside", b"2", ContentType="text/plain", Metadata={"owner": "me"})
        self.write("empty", b"", ContentType="text/html", CacheControl="no-cache")
        self.write("caf\u00e9 + %20&?#<>", b"4")
        self.write("large", rng.randbytes(5 * MIB // 2) + bytes(MIB) + rng.randbytes(7), Metadata={"large": "yes"})
        self.write("zeros", bytes(3 * MIB), ContentLanguage="de")

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        self.write("large", rng.randbytes(rng.randrange(4 * MIB)), Metadata={"large": str(rng.random())})
        self.write(f"deep/new{rng.randrange(10)}", str(rng.random()).encode())

    def put(self, key: str, n: int) -> None:
        self.write(key, str(n).encode() * (n % 5), Metadata={"n": str(n)} if n % 2 else {})

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def picture(self, place: str | None = None) -> Picture:
        prefix = place.removeprefix(f"s3://{self.bucket}/") + "/" if place else self.prefix
        return {("tree", key): self.look(prefix + key) for key in self.names(prefix)}

    def names(self, prefix: str | None = None) -> list[str]:
        prefix = self.prefix if prefix is None else prefix
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [one["Key"][len(prefix) :] for page in pages for one in page.get("Contents", ())]

    def look(self, key: str) -> object:
        found = self.client.get_object(Bucket=self.bucket, Key=key)
        named = ("ContentType", "CacheControl", "ContentLanguage", "ContentDisposition", "ContentEncoding")
        said = {name: found[name] for name in named if found.get(name)}
        if said.get("ContentType") == "binary/octet-stream":
            del said["ContentType"]
        return (found["Body"].read(), said, {k.lower(): v for k, v in found["Metadata"].items()})

    def place(self) -> str:
        self._places += 1
        return f"s3://{self.bucket}/place{self._places}"

    def unwritable(self) -> str:
        return "s3://there-is-no-such-bucket/x"

    def spellings(self) -> list[str]:
        return [f"s3://{self.bucket}/live/", f"S3://{self.bucket}/live"]

    def narrowed(self) -> tuple[StateSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"exclude": ["b:*"]}), lambda key: key[1].startswith("b:")

    def put_unbuildable(self) -> Unbuildable:
        raise NotImplementedError

    def faults(self) -> Iterator[Fault]:
        raise NotImplementedError

    def essence(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.not_equal(rows.column("kind"), "span"))

    def kept_aside(self, notes: Sequence[str]) -> list[object]:
        return []
