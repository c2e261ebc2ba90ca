"""Students: what they are checked by while they serve, and when they are trained anew."""

from __future__ import annotations

from pydantic import Field

from farthing.proxy.config_section import Section

__all__ = ["Distill"]


class Distill(Section):
    """Audits are paid from `semantic.audit_daily_usd`. Students learn from what was captured."""

    audit_share: float = Field(0.05, gt=0, le=1, description="of students' answers, asked of the teacher too")
    teach_share: float = Field(
        0.02, gt=0, le=1, description="of requests that a student may answer, left to the teacher"
    )
    deadline_ms: float = Field(50.0, gt=0, le=10_000)
    retrain_days: float = Field(7.0, ge=0, description="after which a student is trained anew; 0: never by itself")
    retrain_least_hours: float = Field(6.0, ge=0, description="between two tries, also after it went back to observe")
    retrain_timeout_s: float = Field(3600.0, gt=0)
