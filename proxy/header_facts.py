"""What a request's headers say, worked out once for all requests that carry the same ones.

A client sends the same headers with every request: its key, its user agent, the content type. Reading them anew each
time was a tenth of what a miss cost (docs/benchmarks.md). Pure; leaf of `wire`.
"""

from __future__ import annotations

from collections.abc import Callable

from multidict import CIMultiDict, CIMultiDictProxy

from farthing.proxy import aliases, wire
from farthing.proxy.exchange import Controls, Decision

__all__ = ["HeaderBook", "HeaderFacts", "Lines"]

_MOST_REMEMBERED_BYTES = 8_192
_MOST_FORMS = 8


class Lines:
    """Header lines ready to be sent, and what has to be known of them. Raises ValueError: a line break inside one.

    `keyed`: they carry an Idempotency-Key. `authorised`: an Authorization. `framed`: a Content-Length of their own.
    """

    __slots__ = ("authorised", "framed", "keyed", "text")

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        names = {name.lower() for name, _ in headers}
        self.text = wire.lines_of(headers)
        self.keyed = "idempotency-key" in names
        self.authorised = "authorization" in names
        self.framed = "content-length" in names


class HeaderFacts:
    """What one set of request headers says; `pairs`: all of them but Content-Length, whose value is each body's own.

    `credential`: whatever says who calls. `vendor`: what vendors let change an answer. `plain_json`: the body is JSON
    without an encoding. `zips`: the client takes gzip. `waits`: it waits for 100 (RFC 9110, 10.1.1).
    `products`: other gateways whose headers are understood (aliases.Product). `aliased`: the names (lower case) of
    those that are here; they don't go upstream. `told`: what became of them, for the ledger.
    """

    __slots__ = (
        "_controls",
        "_pairs",
        "_said",
        "_scopes",
        "_sent",
        "aliased",
        "credential",
        "plain_json",
        "products",
        "told",
        "vendor",
        "waits",
        "zips",
    )

    def __init__(self, pairs: tuple[tuple[str, str], ...], products: tuple[str, ...] = ()) -> None:
        headers = CIMultiDict(pairs)
        self.products = products
        self.aliased: frozenset[str] = frozenset()
        self.told: tuple[Decision, ...] = ()
        self._said: aliases.Said | None = None
        self._pairs = pairs
        self._controls: Controls | None = None
        self._sent: dict[tuple[object, ...], Lines] = {}
        self._scopes: dict[tuple[str, ...], bytes] = {}
        if products:
            self._listen(products)
        self.credential = wire.credential(headers if not self.aliased else self._callers())
        vendor = wire.vendor_headers(tuple(headers))
        self.vendor = CIMultiDict([(name, value) for name in vendor for value in headers.getall(name)])
        kind = headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        encoded = headers.get("Content-Encoding", "identity").lower() != "identity"
        self.plain_json = kind == "application/json" and not encoded
        self.zips = "gzip" in headers.get("Accept-Encoding", "")
        self.waits = headers.get("Expect", "").lower() == "100-continue"

    def _listen(self, products: tuple[str, ...]) -> None:
        prefixes = aliases.prefixes_of(products)
        self.aliased = frozenset(name.lower() for name, _ in self._pairs if name.lower().startswith(prefixes))
        if self.aliased:
            self._said, self.told = aliases.hear(self._pairs, products)

    def _callers(self) -> CIMultiDict[str]:
        """All headers but those of other gateways that surely don't say who calls."""
        return CIMultiDict(pair for pair in self._pairs if not aliases.names_nobody(pair[0].lower(), self.products))

    def controls(self) -> Controls:
        """What they ask of farthing. Raises ClientFault where that can't be understood."""
        if self._controls is None:
            own = wire.controls(CIMultiDictProxy(CIMultiDict(self._pairs)))
            self._controls = own if self._said is None else aliases.under(own, self._said)
        return self._controls

    def scope(self, which: tuple[str, ...], work_out: Callable[[], bytes]) -> bytes:
        """What `work_out` gives for requests with these headers that share `which`, remembered."""
        known = self._scopes.get(which)
        if known is None:
            known = work_out()
            if len(self._scopes) < _MOST_FORMS:
                self._scopes[which] = known
        return known

    def sent(self, drop: frozenset[str], more: tuple[tuple[str, str], ...]) -> Lines:
        """The end-to-end headers but those in `drop` (lower case), and `more`, ready for upstream; no Content-Length.

        Raises ValueError: a line break in one.
        """
        known = self._sent.get((drop, more))
        if known is None:
            known = Lines([*wire.forwarded(self._pairs, drop=drop | self.aliased), *more])
            if len(self._sent) < _MOST_FORMS:
                self._sent[drop, more] = known
        return known


class HeaderBook:
    """The facts of the sets of headers seen last; long ones are read anew each time. `products`: see HeaderFacts."""

    def __init__(self, most: int = 256, products: tuple[str, ...] = ()) -> None:
        self._most = most
        self._products = products
        self._known: dict[tuple[tuple[str, str], ...], HeaderFacts] = {}

    def facts(self, headers: CIMultiDictProxy[str]) -> HeaderFacts:
        """What they say."""
        pairs = tuple([pair for pair in headers.items() if pair[0] != "Content-Length"])
        known = self._known.get(pairs)
        if known is None:
            known = HeaderFacts(pairs, self._products)
            if sum(len(name) + len(value) for name, value in pairs) <= _MOST_REMEMBERED_BYTES:
                self._known[pairs] = known
                if len(self._known) > self._most:
                    del self._known[next(iter(self._known))]
        return known
