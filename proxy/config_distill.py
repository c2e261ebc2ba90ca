"""Students: what they are checked by while they serve."""

from __future__ import annotations

from pydantic import Field

from farthing.proxy.config_section import Section

__all__ = ["Distill"]


class Distill(Section):
    """Audits are paid from `semantic.audit_daily_usd`."""

    audit_share: float = Field(0.05, gt=0, le=1, description="of students' answers, asked of the teacher too")
    teach_share: float = Field(
        0.02, gt=0, le=1, description="of requests that a student may answer, left to the teacher"
    )
    deadline_ms: float = Field(50.0, gt=0, le=10_000)
