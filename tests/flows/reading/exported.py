"""Metrics as those read them who scrape: prometheus_client's parser."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Scraped:
    """One scrape."""

    kinds: dict[str, str] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)
    series: dict[Series, float] = field(default_factory=dict)

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of a series; None where it is not there."""
        labels.setdefault("plan", "books")
        if name.startswith(("backup_", "shop_")):
            del labels["plan"]
        return self.series.get((name, frozenset(labels.items())))

    def of(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """All series of a name, by their labels."""
        return {labels: value for (one, labels), value in self.series.items() if one == name}

    def counters(self) -> dict[Series, float]:
        """What never goes back: counters, and all that histograms have."""
        return {one: value for one, value in self.series.items() if self._family(one[0]) in ("counter", "histogram")}

    def _family(self, name: str) -> str | None:
        for ending in ("", "_bucket", "_sum", "_count"):
            if (kind := self.kinds.get(name.removesuffix(ending))) is not None:
                return kind
        return None


def scraped(text: str) -> Scraped:
    """Parse what was scraped; no series may be there twice."""
    found = Scraped()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in found.kinds
            found.kinds[name] = kind
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # the parser calls each counter as OpenMetrics would
            plain = sample.name.removesuffix("_total")
            name = plain if found.kinds.get(plain) == "counter" else sample.name
            key = name, frozenset(sample.labels.items())
            assert key not in found.series, key
            found.series[key] = sample.value
            found.meanings[name] = family.documentation
    return found
