"""What outlives the process under the state directory: the secret, the lock with its holder's address, the switch."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.errors import ConfigFault

__all__ = ["SWITCH", "Held", "Switch", "announce", "announced", "claim", "from_here", "hold", "local_secret"]

SWITCH = "switch"
"""What other workers are told of it."""
_LOOK_AGAIN_S = 0.25


def local_secret(state_dir: Path, randomness: Randomness) -> bytes:
    """The secret under which tenants are told apart; made once, readable by its owner only.

    Raises ConfigFault where the directory can't be used.
    """
    path = state_dir / "secret"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            secret = bytes.fromhex(path.read_text("ascii").strip())
            if len(secret) >= 32:
                return secret
            raise ConfigFault(f"{path} is damaged; remove it to begin anew (cached answers will not be found again)")
        fresh = randomness.token(32)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(fresh + "\n")
        return bytes.fromhex(fresh)
    except (OSError, ValueError) as error:
        raise ConfigFault(f"can't use the state directory {state_dir}: {error}") from None


class Held(ConfigFault):
    """Another process holds the state directory."""


def hold(path: Path) -> IO[str] | None:
    """Lock a file, which is made where it isn't, until it is closed or this process has ended, however it ends; None
    where another one holds it. Raises OSError."""
    lock = path.open("a")  # not "w": what stands in it is its holder's until it is ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    except OSError:
        lock.close()
        raise
    return lock


def claim(state_dir: Path) -> IO[str]:
    """Hold the state directory for this process. Raises Held where another one does, ConfigFault where nobody can."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = hold(state_dir / "lock")
        if lock is not None:
            lock.truncate(0)
    except OSError as error:
        raise ConfigFault(f"can't use the state directory {state_dir}: {error.strerror}") from None
    if lock is None:
        raise Held(f"another farthing uses {state_dir}; stop it, or give this one its own --state DIR")
    return lock


def announce(state_dir: Path, url: str) -> None:
    """Write into the claimed lock where its holder listens, for the commands that must ask it."""
    (state_dir / "lock").write_text(url + "\n", "utf-8")


def from_here(url: str) -> str:
    """The URL as this machine reaches it: a server on every address answers on loopback, under a name it trusts."""
    return url.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")


def announced(state_dir: Path) -> str:
    """Where the holder of the lock listens; empty where it hasn't said. Means nothing while nobody holds the lock."""
    try:
        return (state_dir / "lock").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Switch:
    """The emergency switch: while `<state>/OFF` exists, nothing is optimised.

    `farthing policy off` makes the file, `farthing policy on` removes it, and so may any operator by hand. It is
    looked at again at most every quarter of a second.
    """

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self.path = state_dir / "OFF"
        self._clock = clock
        self._off = self.path.exists()
        self._said: bool | None = None
        self._looked_tick = clock.tick_s()

    def __call__(self) -> bool:
        """Whether all optimisation is off."""
        now = self._clock.tick_s()
        if now - self._looked_tick >= _LOOK_AGAIN_S:
            self._off, self._looked_tick = self.path.exists(), now
            if self._said == self._off:
                self._said = None
        return self._off if self._said is None else self._said

    def set(self, *, off: bool) -> None:
        """Turn all optimisation off, or on again. Raises OSError: the file can't be made, or removed."""
        if off:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        else:
            self.path.unlink(missing_ok=True)
        self._off = off

    def say(self, *, off: bool) -> None:
        """It is so in this process, until the file says the same: an emergency may be that nothing can be written."""
        self._said = off
