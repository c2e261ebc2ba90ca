"""The errors that farthing itself raises, split by who is to blame.

    FarthingError
    ├── ClientFault      the request is at fault: 4xx in the OpenAI error shape
    ├── UpstreamFault    the upstream could not be reached or broke off: 502 / 504
    ├── ConfigFault      the operator's configuration is at fault: exit status 2
    └── StoreFault       a store is away or slow; an optimiser never lets it travel to the client

An upstream's own error answer is not an exception: it is passed on unchanged.
A class exists only where some caller branches on it.
"""

from __future__ import annotations

import orjson

__all__ = ["ClientFault", "ConfigFault", "FarthingError", "StoreFault", "UpstreamFault", "error_body"]


class FarthingError(Exception):
    """Base of what farthing raises on purpose."""


class ClientFault(FarthingError):
    """The client's request can't be served as it stands.

    `status`: HTTP status. `code`: short machine name. `param`: the field at fault, if one is.
    `retry_after_s`: sent as `Retry-After` where set.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        kind: str = "invalid_request_error",
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s


class UpstreamFault(FarthingError):
    """The upstream could not be reached, sent nothing in time, or broke off.

    `phase` tells where: connect, send, head, body; down, busy: no replica was asked, as none is up or none is free.
    `sent`: whether the request's body may have arrived. `retry_after_s`: sent as `Retry-After` where set.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: str,
        status: int = 502,
        sent: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.phase = phase
        self.status = status
        self.sent = sent
        self.retry_after_s = retry_after_s


class ConfigFault(FarthingError):
    """The configuration is wrong; the message says what, where and what to do."""


class StoreFault(FarthingError):
    """A store failed or was too slow."""


def error_body(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """One error in the OpenAI shape: `{"error": {"message", "type", "param", "code"}}` as JSON bytes.

    Source: OpenAI API reference, "Error codes".
    """
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
