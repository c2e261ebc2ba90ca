"""Whether all that a provider may still have of a tenant's prompts is noted here.

Where it is, a turn of which nothing is noted was never sent, and may have a form of its own. It isn't where another
process sends too, where this one hasn't been at work for as long as a provider keeps a prompt, or where requests went
by unlooked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing.compress.decided_store import Decisions, in_force_s
from farthing.proxy.clock import Clock

__all__ = ["Noted"]

# No provider keeps a prompt for longer after its last use.
_KEPT_BY_PROVIDERS_S = 86_400.0
_VERSIONS = 1_024
_TENANTS = 10_000


@dataclass(slots=True)
class Noted:
    """`alone`: no other process sends requests for these tenants."""

    clock: Clock
    alone: bool = True
    _since_s: dict[str, float] = field(default_factory=dict)  # by version of the policy
    _passed_s: dict[str, float] = field(default_factory=dict)  # by tenant
    _passed_all_s: float = 0.0  # for those that are no longer remembered
    _begun_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._begun_s = self.clock.now_s()

    def passed_by(self, tenant: str) -> None:
        """A request of the tenant went upstream unlooked at: what it held was sent, and isn't noted anywhere."""
        self._passed_s[tenant] = self.clock.now_s()
        if len(self._passed_s) > _TENANTS:
            self._passed_all_s = max(self._passed_all_s, self._passed_s.pop(next(iter(self._passed_s))))

    async def all_of(self, tenant: str, decisions: Decisions, version: str) -> bool:
        """Whether all that a provider may still have of this tenant stands in the store, under this version."""
        since_s = max(self._begun_s, self._passed_all_s, self._passed_s.get(tenant, 0.0))
        if not self.alone or self.clock.now_s() - since_s < _KEPT_BY_PROVIDERS_S:
            return False
        return await self._in_force_s(decisions, version) >= _KEPT_BY_PROVIDERS_S

    async def _in_force_s(self, decisions: Decisions, version: str) -> float:
        """For how long the store has known all that was sent under this version, in seconds."""
        now_s = self.clock.now_s()
        since_s = self._since_s.get(version)
        if since_s is None:
            since_s = self._since_s[version] = now_s - await in_force_s(decisions, version, now_s)
            if len(self._since_s) > _VERSIONS:
                del self._since_s[next(iter(self._since_s))]
        return now_s - since_s
