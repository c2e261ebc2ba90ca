"""The server's certificate: read at the start, read anew when told to, and a bad new one keeps the old."""

from __future__ import annotations

import ssl
from pathlib import Path

from farthing.proxy.errors import ConfigFault

__all__ = ["ServerTls", "trusting"]


class ServerTls:
    """HTTPS for clients, TLS 1.2 or later. `context`: for the server; connections that are open keep what they have.

    Raises ConfigFault: a file can't be read, or the two don't belong together.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self.context = self._made()

    def again(self) -> None:
        """Read both files anew, for connections from now on. Raises ConfigFault, and then nothing changes."""
        self._made()  # a pair that doesn't fit would leave half of it in the context in use
        self.context.load_cert_chain(self._cert, self._key)

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigFault(f"server.tls_cert, server.tls_key: {_said(error)} ({self._cert}, {self._key})") from None
        return context


def _no_password() -> str:
    raise ValueError("the key asks for a password, which nobody could type")


def _said(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no usable pair of PEM files: {error.reason or error.strerror}"
    return getattr(error, "strerror", None) or str(error)


def trusting(cert: Path) -> ssl.SSLContext:
    """For a client that knows the server by this very certificate, whatever name it is reached under.

    Raises ConfigFault: it can't be read.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted, not its maker
    try:
        context.load_verify_locations(cert)
    except OSError as error:
        raise ConfigFault(f"server.tls_cert: {_said(error)} ({cert})") from None
    return context
