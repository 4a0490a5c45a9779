"""Events from an MQTT broker and answers to one, with the promises that lines have.

    message -> batch -> states and answers committed -> answers published -> message acknowledged

A message is acknowledged only then, so what a crash leaves half done is delivered again, and is
known by its identity. With a name of its own (`client`) the subscription outlives the process: the
broker keeps what comes in between. One message is one JSON object, one answer one message.

Everything happens in the caller's thread: while a batch is stepped nothing is read, so no queue
grows beyond one batch and a flood waits at the broker, which sends only so much without an
acknowledgement. A connection that is lost is made again, once a second.

Source: MQTT 3.1.1, OASIS 2014, section 4.3.2, quality of service 1.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from recurra.errors import BrokerError, ConfigError, MissingExtraError, unknown
from recurra.streaming.session import MOST_EVENTS, Message

PORTS = {"mqtt": 1883, "mqtts": 8883}
USER, PASSWORD = "RECURRA_MQTT_USER", "RECURRA_MQTT_PASSWORD"
KEEPALIVE, PATIENCE, TURN, PAUSE = 60, 10.0, 0.2, 1.0
_FORM = "mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, or mqtts:// with TLS"


class Address(NamedTuple):
    """Where a broker is, and which topic is meant; `client` is the name of the subscription."""

    host: str
    port: int
    topic: str
    user: str | None = None
    password: str | None = None
    is_secure: bool = False
    ca: str | None = None
    client: str | None = None

    def __str__(self) -> str:
        """Without the password, for messages."""
        return f"mqtt{'s' if self.is_secure else ''}://{self.host}:{self.port}/{self.topic}"


def read_address(text: str) -> Address:
    """An address of `mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC[?ca=FILE&client=NAME]`.

    User and password that it does not have are those of the environment, RECURRA_MQTT_USER and
    RECURRA_MQTT_PASSWORD. `%XX` stands for any other sign, as in all URLs.

    Raises: ConfigError when it is no such address.

    >>> read_address("mqtts://hall.example/sensors/+/cpu")[:3]
    ('hall.example', 8883, 'sensors/+/cpu')
    """
    # A topic may hold #, which would begin a URL's fragment.
    parts = urlsplit(text.replace("#", "%23"))
    shown = text if "@" not in text else f"{parts.scheme}://…@{text.rpartition('@')[2]}"
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{shown!r} has no usable port ({error}); expected {_FORM}.") from error
    topic = unquote(parts.path[1:])
    if parts.scheme not in PORTS or not parts.hostname or not topic or "\0" in topic:
        raise ConfigError(f"{shown!r} is no address of a topic; expected {_FORM}.")
    *levels, last = topic.split("/")
    if any("#" in level for level in levels) or any(
        sign in level and level != sign for level in (*levels, last) for sign in "+#"
    ):
        raise ConfigError(
            f"{shown!r}: a wildcard of the topic {topic!r} is not a level of its own; expected + "
            "between two slashes, or # after the last."
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in ("ca", "client"):
            raise ConfigError(f"{shown!r}: {unknown('option', name, ('ca', 'client'))}")
    user = unquote(parts.username) if parts.username else os.environ.get(USER)
    password = unquote(parts.password) if parts.password else os.environ.get(PASSWORD)
    if password is not None and user is None:
        raise ConfigError(
            f"{PASSWORD} is set, but no user. Set {USER}, or name one in the address."
        )
    return Address(
        parts.hostname,
        PORTS[parts.scheme] if port is None else port,
        topic,
        user,
        password,
        parts.scheme == "mqtts",
        options.get("ca"),
        options.get("client"),
    )


class Asked(Protocol):
    """Says whether to stop."""

    @property
    def asked(self) -> bool: ...


class _Connection:
    """One client, whose network is looked after in `turn`. Raises: BrokerError when refused."""

    def __init__(self, address: Address) -> None:
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingExtraError("paho-mqtt", "mqtt", "MQTT") from error
        self.address = address
        self.is_ready = False
        self.losses = 0
        self._refused: str | None = None
        self._client: Any = Client(
            CallbackAPIVersion.VERSION2,
            client_id=address.client or "",
            clean_session=address.client is None,
            manual_ack=True,
        )
        self._client.on_connect = self._connected
        if address.user is not None:
            self._client.username_pw_set(address.user, address.password)

    def __enter__(self) -> Self:
        """Connect. Raises: BrokerError when nobody answers, or with a refusal."""
        address = self.address
        try:
            if address.is_secure:
                self._client.tls_set(address.ca)
            self._client.connect(address.host, address.port, KEEPALIVE)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BrokerError(
                f"cannot connect to {address}: {reason}. Check host and port, and that the broker "
                "is running."
            ) from error
        until = time.monotonic() + PATIENCE
        while not self.is_ready:
            if time.monotonic() > until or self._client.loop(TURN) != 0:
                self._raise_refusal()
                raise BrokerError(
                    f"{address} did not answer as an MQTT broker. Check the port, and mqtts:// "
                    "where it expects TLS."
                )
            self._raise_refusal()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop(0.0)

    def turn(self, wait: float) -> None:
        """Send and receive what there is, waiting for at most so many seconds when nothing is."""
        if self._client.loop(wait) == 0:
            self._raise_refusal()
            return
        self._raise_refusal()
        if self.is_ready:
            print(f"lost {self.address}; connecting again", file=sys.stderr, flush=True)
            self.losses += 1
        self.is_ready = False
        time.sleep(PAUSE)
        try:
            self._client.reconnect()
        except OSError:
            return

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refused = f"refuses the connection: {reason}. Check user and password"
        else:
            self._begin()

    def _begin(self) -> None:
        """What comes first on a new connection."""
        self.is_ready = True

    def _refuse(self, text: str) -> None:
        self._refused = text

    def _raise_refusal(self) -> None:
        if self._refused is not None:
            raise BrokerError(f"{self.address} {self._refused}.")


class MqttSource(_Connection):
    """Messages of a topic, which may have the wildcards + and #, in batches.

    Use it as a context, which connects and subscribes. Raises: BrokerError when it cannot.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._received: list[tuple[int, Any]] = []
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._take

    def batches(self, stop: Asked, most: int = MOST_EVENTS) -> Iterator[list[Message]]:
        """All messages that have come in, up to `most` at once; acknowledged when it goes on."""
        while not stop.asked:
            self.turn(TURN)
            before = 0
            while before < len(self._received) < most:
                before = len(self._received)
                self.turn(0.0)
            batch, self._received = self._received, []
            if batch:
                yield [Message(bytes(one.payload), one.topic) for _, one in batch]
            for losses, one in batch:
                if losses == self.losses:  # on another connection it is delivered again
                    self._client.ack(one.mid, one.qos)

    def turn(self, wait: float) -> None:
        """As that of every connection; what it was lost with comes again to a known client."""
        losses = self.losses
        super().turn(wait)
        if losses != self.losses and self.address.client is not None:
            self._received = [(at, one) for at, one in self._received if one.qos == 0]

    def _begin(self) -> None:
        self._client.subscribe(self.address.topic, qos=1)

    def _subscribed(self, client: Any, data: Any, number: int, reasons: Any, _: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refuse("refuses the subscription. Check the topic, and what the user may read")
        else:
            self.is_ready = True

    def _take(self, client: Any, data: Any, message: Any) -> None:
        self._received.append((self.losses, message))


class MqttSink(_Connection):
    """Publishes answers under a topic. Use it as a context. Raises: BrokerError as a source."""

    def __init__(self, address: Address) -> None:
        if "+" in address.topic or "#" in address.topic:
            raise ConfigError(
                f"{address} has a wildcard; expected one topic to publish the answers under."
            )
        super().__init__(address._replace(client=None))
        self._waiting: set[int] = set()
        self._client.on_publish = self._published

    def write(self, lines: bytes) -> None:
        """Publish each line, and wait until the broker has acknowledged all of them."""
        while not self.is_ready:
            self.turn(TURN)
        for line in lines.split(b"\n")[:-1]:
            self._waiting.add(self._client.publish(self.address.topic, line, qos=1).mid)
        while self._waiting:
            self.turn(TURN)

    def _published(self, client: Any, data: Any, number: int, reason: Any, _: Any) -> None:
        self._waiting.discard(number)
