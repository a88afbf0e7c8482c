"""What was proved, and the table that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.table import Table

from flows.reporting.units import human_bytes, human_seconds


@dataclass(frozen=True)
class Proof:
    """One thing that was to be shown.

    Attributes:
        claim: What should hold, as a sentence.
        evidence: What was counted or compared.
        holds: Whether it did.
        seconds: How long the work took that is being judged.
        size_bytes: Bytes it was about.
    """

    claim: str
    evidence: str
    holds: bool
    seconds: float | None = None
    size_bytes: int | None = None


@dataclass
class Proofs:
    """All proofs of one demo."""

    made: list[Proof] = field(default_factory=list)

    def add(self, proof: Proof) -> None:
        """Take a proof."""
        self.made.append(proof)

    @property
    def failed(self) -> list[Proof]:
        """What did not hold."""
        return [proof for proof in self.made if not proof.holds]

    def table(self) -> Table:
        """Draw all proofs."""
        table = Table(
            title="What was proved", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("claim", min_width=30)
        table.add_column("evidence", min_width=20)
        for name, width in (("time", 6), ("size", 9)):
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        table.add_column("result", no_wrap=True, min_width=6)
        for proof in self.made:
            table.add_row(
                proof.claim,
                proof.evidence,
                "" if proof.seconds is None else human_seconds(proof.seconds),
                "" if proof.size_bytes is None else human_bytes(proof.size_bytes),
                "[bold green]PASS[/]" if proof.holds else "[bold red]FAIL[/]",
            )
        return table
