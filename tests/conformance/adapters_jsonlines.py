"""The source of the example package under the conformance suite: what docs/plugins.md promises of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conformance.suite import Cause, Fault, PathAdapter, Picture, Unbuildable

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "lastgood-example"
sys.path.append(str(EXAMPLE))

from lastgood_example.source import JSONLinesSource  # noqa: E402  where it is was only just said


class JSONLinesAdapter(PathAdapter):
    """A file of JSON lines."""

    name = "jsonlines"

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._path = folder / "live.jsonl"
        self._longest: int | None = None
        self._write({})

    @property
    def source(self) -> JSONLinesSource:
        return JSONLinesSource(path=str(self._path), part_size_bytes=400, longest_line_bytes=self._longest)

    def _lines(self, path: Path | None = None) -> dict[str, str]:
        place = path or self._path
        lines = place.read_text().split("\n")[:-1] if place.exists() else []
        return {json.loads(line)["key"]: line for line in lines}

    def _write(self, lines: dict[str, str]) -> None:
        new = self._path.with_name("new")
        new.write_text("".join(f"{line}\n" for line in lines.values()))
        os.replace(new, self._path)

    def put(self, key: str, n: int) -> None:
        value = {"key": key, "n": n / 2 if n % 2 else n, "text": "é\\u2028" * (n % 7), "deep": [{"a": None}] * (n % 3)}
        self._write(self._lines() | {key: json.dumps(value, ensure_ascii=n % 2 == 0)})

    def remove(self, key: str) -> None:
        lines = self._lines()
        del lines[key]
        self._write(lines)

    def picture(self, place: str | None = None) -> Picture:
        return {("lines", key): line for key, line in self._lines(Path(place) if place else None).items()}

    def place(self) -> str:
        self._places += 1
        return str(self.folder / f"place{self._places}.jsonl")

    def unwritable(self) -> str:
        return str(self.folder / "missing" / "folder" / "x.jsonl")

    def spellings(self) -> list[str]:
        link = self.folder / "link.jsonl"
        link.symlink_to(self._path)
        return [str(link), os.path.relpath(self._path), f"{self.folder}/./live.jsonl"]

    def narrowed(self) -> tuple[JSONLinesSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"exclude": ["b:*"]}), lambda key: key[1].startswith("b:")

    def put_unbuildable(self) -> Unbuildable:
        self._longest = 500
        line = json.dumps({"key": "long", "text": "x" * 1000})
        self._write(self._lines() | {"long": line})

        def spoil() -> None:
            self._write(self._lines() | {"long": json.dumps({"key": "long", "text": "live"})})

        return Unbuildable("key 'long'", spoil, ("lines", "long"), rows=1)

    def faults(self) -> Iterator[Fault]:
        there, live = self.folder / "there", str(self._path)
        yield Fault(Cause.MISSING, str(there), self.source.at(str(there)), (live,))
        for odd, named in (("no JSON", "line 2"), ('{"key": 7}', "line 2"), ('{"key": "a:00"}', "'a:00'")):
            there.write_text(f'{{"key": "a:00"}}\n{odd}\n')
            yield Fault(Cause.OBJECT, named, self.source.at(str(there)), (live,))
