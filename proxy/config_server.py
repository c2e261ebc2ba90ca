"""Where farthing listens, and whom it believes what they say of a connection."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from farthing.proxy.config_section import Secret, Section

__all__ = ["Server"]


class Server(Section):
    """Where farthing listens. `tls_cert`, `tls_key`: PEM files; with them it speaks HTTPS, and SIGHUP reads them anew.

    `workers`: processes that answer. `trusted_proxies`: addresses or networks whose X-Forwarded-For counts; nobody
    else's does.
    """

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    admin_token: Secret = None
    workers: int = Field(1, ge=1, le=64)
    drain_s: float = Field(30.0, ge=0)
    keepalive_s: float = Field(75.0, gt=0)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            try:
                ipaddress.ip_network(one)
            except ValueError as error:
                raise ValueError(f"{one!r} is no address or network: {error}") from None
        return given

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Server:
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: set both or neither")
        return self
