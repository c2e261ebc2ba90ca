"""Exit status 0 where the farthing of this container answers on loopback, 1 where not. Needs Python alone."""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 3


def main(port: int) -> int:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        link.request("GET", "/healthz")
        return 0 if link.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        link.close()


if __name__ == "__main__":
    sys.exit(main(int(os.environ.get("FARTHING_SERVER__PORT", "8080"))))
