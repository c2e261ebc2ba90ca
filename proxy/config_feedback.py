"""What users say of answers, and what they say by what they do."""

from __future__ import annotations

from pydantic import Field

from farthing.proxy.config_section import Section

__all__ = ["Feedback"]


class Feedback(Section):
    """Outcomes are kept as long as the ledger's rows (`ledger.keep_days`)."""

    implicit: bool = Field(True, description="note users who ask again, repeat themselves or hang up")
    reask_within_s: float = Field(300.0, gt=0, le=86_400)
