"""What only some configurations need: modules that are imported before such a one is built.

Rules of this file: whoever uses one imports it inside the function that does, since most processes never come there;
here it only happens earlier, in a thread, so that no request waits while it loads. What commands and admin calls need
doesn't stand here.
"""

from __future__ import annotations

from importlib import import_module

from farthing.proxy.config import Config

__all__ = ["load", "needed"]


def needed(config: Config) -> tuple[str, ...]:
    """The modules by name, what each brings along left out."""
    found = []
    if config.compress.squeeze != "off":
        found.append("farthing.compress.squeeze")
    if config.routed:
        found += ["farthing.proxy.stage_routed", "farthing.policies.agree"]
    if config.shadow.share and config.routed:
        found.append("farthing.proxy.route_shadow")
    if any(one.student for one in config.variants):
        found.append("farthing.proxy.build_students")
    if any(rule.kind for rule in config.cache.freshness):
        found.append("farthing.policies.agree")
    if config.store.url.get_secret_value() and config.semantic.mode != "off" and config.semantic.shared:
        found.append("farthing.cache.shared_index")
    if config.store.url.get_secret_value():
        found.append("farthing.proxy.learnt_agreed")
    if config.semantic.index == "pgvector":
        found.append("farthing.cache.index_pg")
    return tuple(dict.fromkeys(found))


def load(config: Config) -> None:
    """Import them. Cost: up to some 20 ms of a processor, once."""
    for name in needed(config):
        import_module(name)
