"""One of several processes that answer: `python -m farthing.proxy.worker PLACE`, started by supervise.py alone."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from rich.console import Console

from farthing.proxy.config import Config
from farthing.proxy.config import load as load_config
from farthing.proxy.errors import ConfigFault
from farthing.proxy.logs import set_up
from farthing.proxy.place import Place
from farthing.proxy.starting import begin, import_aiohttp

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Answer requests until told to stop; the exit status."""
    begin(os.environ)
    place = Place.read(arguments[0])
    console = Console(stderr=True)
    os.umask(0o077)
    try:
        config = configured(place)
        set_up(config.log)
        import_aiohttp(os.environ)
        from farthing.proxy.serve import work

        return work(config, place, console)
    except ConfigFault as fault:
        console.print(str(fault), style="red", markup=False, highlight=False)
        return 2


def configured(place: Place) -> Config:
    """The configuration as it is now. Raises ConfigFault."""
    return load_config(None if place.config is None else Path(place.config), flags=place.flags)


def sockets(place: Place) -> list[socket.socket]:
    """What all workers listen on, as this process's own."""
    return [socket.socket(fileno=fd) for fd in place.listeners]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
