"""The text of metrics is read back as it was meant, by prometheus_client's parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from flows.reporting.exposition import Family, exposition

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(NAMES, st.floats(allow_nan=False), NAMES.filter(str.strip))
def test_labels_values_and_meanings_come_back(label: str, value: float, meaning: str) -> None:
    family = Family("lastgood_up", "gauge", meaning)
    family.add(value, plan=label)
    (read,) = text_string_to_metric_families(exposition([family]))
    assert [(one.name, one.labels, one.value) for one in read.samples] == [("lastgood_up", {"plan": label}, value)]


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_counts_each_value_in_every_bucket_above_it(values: list[float]) -> None:
    bounds = (1, 10, 50.5)
    found: dict[float, int] = {}
    for value in values:
        bound = next((bound for bound in bounds if value <= bound), math.inf)
        found[bound] = found.get(bound, 0) + 1
    family = Family("lastgood_seconds", "histogram", "How long it took.")
    family.add_histogram(found, sum(values), bounds, plan="books")
    (read,) = text_string_to_metric_families(exposition([family]))
    told = {(one.name, one.labels.get("le")): one.value for one in read.samples}
    for bound, shown in ((1, "1"), (10, "10"), (50.5, "50.5"), (math.inf, "+Inf")):
        assert told["lastgood_seconds_bucket", shown] == sum(value <= bound for value in values)
    assert told["lastgood_seconds_count", None] == len(values)
    assert told["lastgood_seconds_sum", None] == pytest.approx(sum(values))


def test_buckets_of_an_earlier_version_are_shown_in_those_of_this_one() -> None:
    family = Family("lastgood_seconds", "histogram", "How long it took.")
    family.add_histogram({0.3: 2, 7.0: 1, math.inf: 1}, 30, (0.5, 5))
    assert [value for _, labels, value in family.samples if "le" in labels] == [2, 2, 4]


def test_a_metric_without_series_is_not_told() -> None:
    assert exposition([Family("lastgood_up", "gauge", "Whether.")]) == ""


def test_text_that_is_no_unicode_is_told_in_unicode() -> None:
    family = Family("lastgood_up", "gauge", "Whether.")
    family.add(1, tier="caf\udce9")
    exposition([family]).encode()
