"""The keys under which stored answers are sealed, from the configuration."""

from __future__ import annotations

from farthing.proxy.clock import Randomness
from farthing.proxy.config_store import Store, key_of
from farthing.proxy.errors import ConfigFault
from farthing.proxy.seal import Sealer

__all__ = ["key_ids", "sealer"]


def sealer(store: Store, randomness: Randomness) -> Sealer | None:
    """What seals; None where no key is given. Blocks on a key file.

    Raises ConfigFault: the file can't be read or holds no keys; the extra `encryption` isn't installed.
    """
    keys = _keys(store)
    if not keys:
        return None
    try:
        return Sealer(keys, lambda count: bytes.fromhex(randomness.token(count)))
    except ModuleNotFoundError:
        raise ConfigFault("store.encryption_key needs a library: pip install 'farthing[encryption]'") from None


def key_ids(store: Store, randomness: Randomness) -> tuple[str, ...]:
    """The ids of the keys, the one that closes first; none where nothing is sealed. Raises as `sealer`."""
    seal = sealer(store, randomness)
    return () if seal is None else seal.key_ids


def _keys(store: Store) -> list[bytes]:
    if store.encryption_key_file is None:
        given = [] if store.encryption_key is None else [store.encryption_key, *store.encryption_old_keys]
        return [key_of(one.get_secret_value()) for one in given]
    path = store.encryption_key_file
    try:
        keys = [key_of(line) for line in path.read_text("ascii").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigFault(f"store.encryption_key_file: can't read {path}: {error.strerror}") from None
    except ValueError as error:
        said = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ConfigFault(f"store.encryption_key_file: {path}: {said}") from None
    if not keys:
        raise ConfigFault(f"store.encryption_key_file: {path} holds no key")
    return keys
