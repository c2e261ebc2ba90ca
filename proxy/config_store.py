"""Where answers are kept, and under which keys."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from farthing.proxy.config_section import Secret, Section

__all__ = ["Store"]

_HEX_DIGITS = 64


class Store(Section):
    """Where answers are kept. `url` empty: memory before SQLite under `state_dir`; else before Redis, with `stale_s`.

    `encryption_key`: answers are sealed under it (64 hex digits); `encryption_old_keys`: those it replaced, which only
    open. Or `encryption_key_file`: such keys, one a line, the current one first.
    """

    url: SecretStr = SecretStr("")
    deadline_ms: float = Field(50.0, gt=0)
    memory_bytes: int = Field(256 * 2**20, ge=0)
    stale_s: float = Field(1.0, ge=0, description="how old what memory before Redis says may be; 0: no memory there")
    max_bytes: int = Field(2 * 2**30, ge=0)
    max_entries: int = Field(200_000, ge=1)
    encryption_key: Secret = None
    encryption_old_keys: tuple[SecretStr, ...] = ()
    encryption_key_file: Path | None = None

    @field_validator("encryption_key", "encryption_old_keys")
    @classmethod
    def _are_keys(cls, given: SecretStr | tuple[SecretStr, ...] | None) -> SecretStr | tuple[SecretStr, ...] | None:
        for one in (given,) if isinstance(given, SecretStr) else given or ():
            key_of(one.get_secret_value())
        return given

    @model_validator(mode="after")
    def _one_place(self) -> Store:
        if self.encryption_key_file is not None and (self.encryption_key or self.encryption_old_keys):
            raise ValueError("encryption_key_file holds all keys: leave encryption_key and encryption_old_keys out")
        if self.encryption_old_keys and self.encryption_key is None:
            raise ValueError("encryption_old_keys only open: set encryption_key too")
        return self


def key_of(text: str) -> bytes:
    """A key as bytes. Raises ValueError, which doesn't repeat it."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) * 2 != _HEX_DIGITS:
        raise ValueError(f"a key is {_HEX_DIGITS} hex digits (openssl rand -hex 32)")
    return key
