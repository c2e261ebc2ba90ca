"""What makes a start short and must be done before the rest is imported. Of the process as a whole: commands call it.

Nothing heavy is imported here.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import MutableMapping

__all__ = ["begin", "import_aiohttp"]


def begin(environ: MutableMapping[str, str]) -> None:
    """Look for no garbage until serve.collect_seldom, and for no plugins of pydantic unless the operator says so."""
    gc.disable()  # what a start makes stays: looking through it over and over took a tenth of its time
    environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read the metadata of all that is installed


def import_aiohttp(environ: MutableMapping[str, str]) -> None:
    """Import aiohttp without the authorities that its client would trust, which it reads twice, 0.1 s of a processor,
    for calls that never come: connections.py and alerts.py, which call others, read their own."""
    if "aiohttp" in sys.modules:
        return
    told = environ.get("SSL_CERT_FILE")
    environ["SSL_CERT_FILE"] = os.devnull  # OpenSSL's own variable
    try:
        import aiohttp  # noqa: F401
    finally:
        del environ["SSL_CERT_FILE"]
        if told is not None:
            environ["SSL_CERT_FILE"] = told
