"""Between a client's API and an upstream's other one: the one door to the adapters. Pure. Rules: see adapt_shared.

adapter = adapter_for(Endpoint.CHAT, "anthropic", created_s=now_s)
path, body = adapter.request(body)              Refused: 400 to the client, with the field's name
body = adapter.answer(status, body)             Refused: 502, the upstream's answer makes no sense
stream = adapter.stream(); stream.feed(event)   whole events in, whole events out; stream.finish() at the end
"""

from __future__ import annotations

from typing import Protocol

from farthing.proxy import adapt_errors
from farthing.proxy.adapt_answers import answer_to_chat, answer_to_message
from farthing.proxy.adapt_shared import Options, Piece, Refused
from farthing.proxy.adapt_stream_chat import StreamToChat
from farthing.proxy.adapt_stream_messages import StreamToMessages
from farthing.proxy.adapt_to_chat import request_to_chat
from farthing.proxy.adapt_to_messages import request_to_messages
from farthing.proxy.exchange import Endpoint
from farthing.proxy.styles import STYLES, StyleName

__all__ = ["Adapter", "Adapting", "Refused", "adapter_for"]


class Adapting(Protocol):
    """A stream on its way from one API to the other."""

    def feed(self, event: bytes) -> list[Piece]:
        """What whole events of the upstream's amount to. Raises Refused."""
        ...

    def finish(self) -> list[Piece]:
        """What is to be said when the upstream's stream has ended. Raises Refused."""
        ...


class Adapter(Protocol):
    """One client's API in front of one upstream's. `client`, `upstream`: which calls they are."""

    @property
    def client(self) -> Endpoint:
        """What the client calls."""
        ...

    @property
    def upstream(self) -> Endpoint:
        """What the upstream is called with, and answers as."""
        ...

    def request(self, body: bytes) -> tuple[str, bytes]:
        """The upstream's path (under `/v1`) and body. Raises Refused."""
        ...

    def status(self, status: int) -> int:
        """The upstream's status as the client's API says it."""
        ...

    def answer(self, status: int, body: bytes) -> bytes:
        """A whole answer, or an error's body (any status from 400 on). Raises Refused: not for errors."""
        ...

    def stream(self) -> Adapting:
        """A stream's way back."""
        ...


class ChatOverMessages:
    """A client of OpenAI's chats, an upstream of Anthropic's messages. `created_s`: what its chats are stamped with."""

    client, upstream = Endpoint.CHAT, Endpoint.MESSAGES

    def __init__(self, options: Options, created_s: int) -> None:
        self._options = options
        self._created_s = created_s

    def request(self, body: bytes) -> tuple[str, bytes]:
        """See Adapter."""
        return "/v1/messages", request_to_messages(body, self._options)

    def status(self, status: int) -> int:
        """See Adapter."""
        return adapt_errors.status_to_chat(status)

    def answer(self, status: int, body: bytes) -> bytes:
        """See Adapter."""
        if status >= 400:
            return adapt_errors.chat_error(adapt_errors.error_to_chat(adapt_errors.error_in(body)))
        return answer_to_chat(body, self._created_s)

    def stream(self) -> StreamToChat:
        """See Adapter."""
        return StreamToChat(self._created_s)


class MessagesOverChat:
    """A client of Anthropic's messages, an upstream of OpenAI's chats."""

    client, upstream = Endpoint.MESSAGES, Endpoint.CHAT

    def __init__(self, options: Options) -> None:
        self._options = options

    def request(self, body: bytes) -> tuple[str, bytes]:
        """See Adapter."""
        return "/v1/chat/completions", request_to_chat(body, self._options)

    def status(self, status: int) -> int:
        """See Adapter."""
        return adapt_errors.status_to_message(status)

    def answer(self, status: int, body: bytes) -> bytes:
        """See Adapter."""
        if status >= 400:
            return adapt_errors.error_to_message(self.status(status), adapt_errors.error_in(body))
        return answer_to_message(body)

    def stream(self) -> StreamToMessages:
        """See Adapter."""
        return StreamToMessages()


def adapter_for(
    client: Endpoint,
    style: StyleName,
    *,
    created_s: int,
    options: Options | None = None,
) -> Adapter | None:
    """What stands between them; None where they speak the same, or the upstream's style has no such call at all.

    `options`: the style's own where None.
    """
    kind = STYLES[style]
    options = kind.options if options is None else options
    if client is Endpoint.CHAT and kind.messages:
        return ChatOverMessages(options, created_s)
    if client is Endpoint.MESSAGES and style != "any" and not kind.messages:
        return MessagesOverChat(options)
    return None
