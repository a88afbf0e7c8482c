"""Who is told the numbers of a plan's operations, each at its moment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from blocks.plan.wrong_fields import near, wrong_at
from blocks.telemetry.collector import (
    TAGGED,
    BackendKind,
    MetricsCollector,
    backend_kind,
    backend_names,
    check_backend,
    check_reached,
)
from blocks.telemetry.published import checked_prefix

_Tag = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Metrics(BaseModel):
    """Where metrics go, and what they are called there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    backend: str | None = Field(
        default=None,
        description="What numbers are sent to: `statsd`, `datadog`, `otlp`, or what another package adds. Prometheus "
        "fetches them from `lastgood metrics`, whatever stands here.",
    )
    address: str | None = Field(
        default=None,
        description="Where that listens: host:port (localhost:8125 where nothing stands here), unix:///path of a "
        "Datadog agent, or a URL of OTLP over HTTP (http://localhost:4318).",
    )
    prefix: str = Field(
        default="", description="Stands before each name of a metric, such as `acme` for acme.backup.operations…"
    )
    tags: dict[str, _Tag] = Field(
        default_factory=dict,
        description="Tags of Datadog, or attributes of OTLP, by name, beside the plan's name; others have none.",
    )

    @field_validator("backend")
    @classmethod
    def _is_there(cls, backend: str | None) -> str | None:
        try:
            return backend if backend is None else backend_kind(backend)
        except ValueError:
            known = backend_names()
            raise ValueError(f"write one of {', '.join(known)}{near(backend, known)}") from None

    @field_validator("prefix")
    @classmethod
    def _before_names(cls, prefix: str) -> str:
        return checked_prefix(prefix)

    @model_validator(mode="after")
    def _of_the_backend(self) -> Metrics:
        for field, address, tags in (("address", self.address, {}), ("tags", None, self.tags)):
            try:
                check_backend(self.backend, address, tags)
            except ValueError as exc:
                raise wrong_at((field,), str(exc)) from None
        return self

    @property
    def sends(self) -> bool:
        """Whether numbers are sent anywhere, rather than fetched."""
        return self.backend not in (None, BackendKind.PROMETHEUS)

    def reach(self) -> str:
        """Return where numbers are sent, in words.

        Raises:
            ConfigurationError: The client of the backend is not installed, or its host is not known.
        """
        assert self.backend is not None, "nothing is sent"
        return check_reached(self.backend, self.address)

    def collector(self, plan: str) -> MetricsCollector:
        """Return what sends them.

        Args:
            plan: Name of the plan, which is a tag where there are any, unless the plan says otherwise.

        Raises:
            ConfigurationError: The client of the backend is not installed.
        """
        assert self.backend is not None, "nothing is sent"
        tagged = self.backend in TAGGED or not isinstance(self.backend, BackendKind)
        tags = {"plan": plan, **self.tags} if tagged else {}
        return MetricsCollector(self.backend, self.prefix, self.address, tags)
