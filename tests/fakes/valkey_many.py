"""Several real Valkey servers that stand in for each other: a primary watched by sentinels, and a cluster.

with WatchedValkey() as watched: watched.primary.kill(); watched.await_other(old)
with ValkeyCluster(replicas=True) as cluster: cluster.nodes[0].kill()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from redis.crc import key_slot

from tests.fakes.for_a_while import ForAWhile
from tests.fakes.valkey import ValkeyProcess

__all__ = ["SERVICE", "ValkeyCluster", "WatchedValkey", "until"]

SERVICE = "answers"
_WITHIN_S = 30.0
_SLOTS = 16_384
_AT_ONCE = ("--repl-diskless-sync-delay", "0")


def until(what: str, true: Callable[[], bool]) -> None:
    """Wait for it. Raises RuntimeError: it took too long."""
    end = time.monotonic() + _WITHIN_S
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"within {_WITHIN_S:g} s it did not come to be: {what}")
        time.sleep(0.02)


class Sentinel(ValkeyProcess):
    """One sentinel over that primary; it calls it down after `down_ms`, and acts with `quorum` others of its mind."""

    def __init__(self, primary: ValkeyProcess, quorum: int, down_ms: int) -> None:
        super().__init__()
        self._file = self._home / "sentinel.conf"
        self._file.write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self._home}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {down_ms}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n",
            "ascii",
        )

    @property
    def arguments(self) -> list[str]:
        """ValkeyProcess.arguments: the file, which it writes what it learns into."""
        return [str(self._file), "--sentinel"]


class WatchedValkey(ForAWhile):
    """A primary, a replica of it, and sentinels which make the replica primary when the primary is down."""

    def __init__(self, sentinels: int = 3, down_ms: int = 500) -> None:
        first = ValkeyProcess(*_AT_ONCE)
        second = ValkeyProcess(*_AT_ONCE, "--replicaof", "127.0.0.1", str(first.port))
        self.servers = (first, second)
        self.sentinels = [Sentinel(first, sentinels // 2 + 1, down_ms) for _ in range(sentinels)]

    @property
    def port(self) -> int:
        """The first primary's."""
        return self.servers[0].port

    @property
    def url(self) -> str:
        """As `store.url` has it."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}/0"

    @property
    def primary(self) -> ValkeyProcess:
        """The one that the first sentinel names now."""
        told = self.sentinels[0].command(f"SENTINEL get-master-addr-by-name {SERVICE}")
        return next(one for one in self.servers if f"\r\n{one.port}\r\n".encode() in told)

    def await_other(self, old: ValkeyProcess) -> None:
        """Wait until every sentinel names another primary than that."""
        asked = f"SENTINEL get-master-addr-by-name {SERVICE}"
        for one in self.sentinels:
            until("another primary", lambda one=one: f"\r\n{old.port}\r\n".encode() not in one.command(asked))

    def start(self) -> None:
        """ForAWhile.start: all know each other then, and the replica has everything."""
        for server in self.servers:
            server.start()
        until("a replica in step", lambda: b"master_link_status:up" in self.servers[1].command("INFO replication"))
        for sentinel in self.sentinels:
            sentinel.start()
        others = str(len(self.sentinels) - 1)
        wanted = ["num-slaves\r\n$1\r\n1\r\n", f"num-other-sentinels\r\n$1\r\n{others}\r\n"]
        for one in self.sentinels:
            until(
                "sentinels that know each other",
                lambda one=one: all(part.encode() in one.command(f"SENTINEL master {SERVICE}") for part in wanted),
            )

    def close(self) -> None:
        """ForAWhile.close."""
        for one in (*self.sentinels, *self.servers):
            one.close()


class ValkeyCluster(ForAWhile):
    """Three nodes that share the slots, each with a replica that takes over for it, or without."""

    def __init__(self, *, replicas: bool, timeout_ms: int = 1000) -> None:
        options = (*_AT_ONCE, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms))
        options += ("--cluster-replica-validity-factor", "0", "--enable-debug-command", "local")
        self._options = options
        self.nodes = [ValkeyProcess(*options) for _ in range(6 if replicas else 3)]
        self._asked_at = [node.port for node in self.nodes]

    @property
    def port(self) -> int:
        """The first node's."""
        return self.nodes[0].port

    @property
    def url(self) -> str:
        """As `store.url` has it."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self._asked_at[:3])}"

    def announce(self, ports: Sequence[int]) -> None:
        """Clients are told to ask the nodes at these ports, which lead there. Before it starts."""
        self._asked_at = list(ports)
        for node, port in zip(self.nodes, ports, strict=True):
            node.options += ("--cluster-announce-port", str(port))

    def await_whole(self, but: ValkeyProcess | None = None) -> None:
        """Wait until every node says that all slots are served. `but`: one that is down, and that none may name."""
        for one in self.nodes:
            if one is not but:
                until("a cluster that is whole", lambda one=one: _whole(one, but))

    def owner(self, name: str) -> ValkeyProcess:
        """The primary that has the key of that name, as the first node sees it."""
        slot = slot_of(name)
        lines = [line.split() for line in self.nodes[0].command("CLUSTER NODES").decode().splitlines()]
        for line in lines:
            for first, _, last in (part.partition("-") for part in line[8:] if not part.startswith("[")):
                if int(first) <= slot <= int(last or first):
                    port = int(line[1].partition("@")[0].rpartition(":")[2])
                    return self.nodes[self._asked_at.index(port)]
        raise RuntimeError(f"nobody has slot {slot}")

    def join(self) -> ValkeyProcess:
        """One more primary, without slots, that all know."""
        node = ValkeyProcess(*self._options)
        self.nodes.append(node)
        self._asked_at.append(node.port)
        node.start()
        node.command(f"CLUSTER SET-CONFIG-EPOCH {len(self.nodes)}")
        self.nodes[0].command(f"CLUSTER MEET 127.0.0.1 {node.port}")
        self._await_known()
        return node

    def begin_move(self, name: str, to: ValkeyProcess) -> None:
        """That key's slot is on its way to that node: what is left of it goes when `MIGRATE` says so."""
        slot, there = slot_of(name), self.owner(name)
        _done(to.command(f"CLUSTER SETSLOT {slot} IMPORTING {id_of(there)}"))
        _done(there.command(f"CLUSTER SETSLOT {slot} MIGRATING {id_of(to)}"))

    def carry(self, name: str, to: ValkeyProcess) -> None:
        """Move that key alone, of a slot that is on its way."""
        _done(self.owner(name).command(f"MIGRATE 127.0.0.1 {to.port} {name} 0 5000"))

    def end_move(self, name: str, to: ValkeyProcess) -> None:
        """That node has the slot, as every node knows."""
        for one in (to, *(node for node in self.nodes if node is not to)):
            one.command(f"CLUSTER SETSLOT {slot_of(name)} NODE {id_of(to)}")
        self.await_whole()

    def cut_off(self, node: ValkeyProcess) -> None:
        """No other node hears this one, nor it them; clients reach it as before."""
        for line in ("DISABLE-CLUSTER-RECONNECTION 1", "CLOSE-CLUSTER-LINK-ON-PACKET-DROP 1"):
            _done(node.command(f"DEBUG {line}"))
        _done(node.command("DEBUG DROP-CLUSTER-PACKET-FILTER -2"))

    def start(self) -> None:
        """ForAWhile.start: all slots are served, and the replicas are in step."""
        first, *others = self.nodes
        primaries = self.nodes[:3]
        for number, node in enumerate(self.nodes):
            node.start()
            node.command(f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
        for number, node in enumerate(primaries):
            begin, end = (_SLOTS * at // len(primaries) for at in (number, number + 1))
            node.command(f"CLUSTER ADDSLOTSRANGE {begin} {end - 1}")
        for node in others:
            first.command(f"CLUSTER MEET 127.0.0.1 {node.port}")
        self._await_known()
        for node, primary in zip(self.nodes[3:], primaries, strict=False):
            self._replicate(node, primary)
            until(
                "a replica in step",
                lambda node=node: b"master_link_status:up" in node.command("INFO replication"),
            )
        self.await_whole()

    def _replicate(self, node: ValkeyProcess, primary: ValkeyProcess) -> None:
        """Make it that primary's replica. Raises RuntimeError, with what the node said last."""
        said, end = b"", time.monotonic() + _WITHIN_S
        while b"OK" not in (said := node.command(f"CLUSTER REPLICATE {id_of(primary)}")):
            if time.monotonic() > end:
                known = node.command("CLUSTER NODES").decode()
                raise RuntimeError(f"within {_WITHIN_S:g} s it was no replica: {said.decode()}\n{known}")
            node.command(f"CLUSTER MEET 127.0.0.1 {primary.port}")  # where they have lost each other
            time.sleep(0.1)

    def close(self) -> None:
        """ForAWhile.close."""
        for node in self.nodes:
            node.close()

    def _await_known(self) -> None:
        """By name: a node that is still being met is counted among the known ones, under a name that isn't its own."""
        names = [id_of(node).encode() for node in self.nodes]
        for node in self.nodes:
            until(
                "nodes that know each other",
                lambda node=node: all(name in node.command("CLUSTER NODES") for name in names),
            )


def slot_of(name: str) -> int:
    """Of a key in a cluster."""
    return int(key_slot(name.encode()))


def id_of(node: ValkeyProcess) -> str:
    """What a cluster calls it."""
    return node.command("CLUSTER MYID").split(b"\r\n")[1].decode()


def _done(said: bytes) -> None:
    """Raises RuntimeError: it was refused."""
    if b"OK" not in said:
        raise RuntimeError(said.decode())


def _whole(node: ValkeyProcess, but: ValkeyProcess | None) -> bool:
    told = node.command("CLUSTER INFO")
    if b"cluster_state:ok" not in told or f"cluster_slots_ok:{_SLOTS}".encode() not in told:
        return False
    if but is None:
        return True
    return f"\r\n:{but.port}\r\n".encode() not in node.command("CLUSTER SLOTS")
