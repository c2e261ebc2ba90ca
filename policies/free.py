"""Which calls surely cost nothing, whoever the provider is: a hard budget needs no price for them. Pure.

Rules of this file: by method, or by a short list of paths as OpenAI's and Anthropic's API references have them; what
isn't surely free (moderations, storage that is paid by the day, anything unknown) isn't here. A path is matched as it
came, whole: another spelling of it is none of these.
"""

from __future__ import annotations

import re

__all__ = ["surely_free"]

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_PATHS = re.compile(
    r"/v1/(?:"
    r"files"  # an upload
    r"|uploads(?:/[\w-]{1,128}/(?:parts|complete|cancel))?"
    r"|batches/[\w-]{1,128}/cancel"
    r"|responses/[\w-]{1,128}/cancel"
    r"|responses/input_tokens"
    r"|messages/count_tokens"
    r"|messages/batches/[\w-]{1,128}/cancel"
    r")",
    re.ASCII,
)


def surely_free(method: str, path: str) -> bool:
    """Whether such a call is free of charge. `path`: without its query."""
    return method in _METHODS or (method == "POST" and _PATHS.fullmatch(path) is not None)
