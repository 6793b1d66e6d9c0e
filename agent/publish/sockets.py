"""The ZeroMQ sockets of the bus: opened in one thread, then used and closed by the bus thread."""

from __future__ import annotations

import errno
import logging
import socket as posix_socket
from collections.abc import Iterator, Sequence

import zmq
import zmq.auth
from zmq.utils.monitor import recv_monitor_message

from agent.config import BusConfig
from agent.errors import BusError
from agent.publish.control import MAX_PENDING, MAX_REQUEST_BYTES
from agent.publish.security import ServerKeys, bound_addresses

__all__ = ["Sockets"]

logger = logging.getLogger(__name__)

# With a domain that must match, libzmq refuses every client should the ZAP handler be missing;
# without one it would let all of them in.
_ZAP_DOMAIN = "sensebind"
# A little over the limit a client still gets a reply that says so; far over, libzmq cuts it off.
_MAX_CONTROL_BYTES = 4 * MAX_REQUEST_BYTES
_MAX_SUBSCRIPTION_BYTES = 4096
# Messages taken from one socket before the others have their turn.
_TURN = 256

_REJECTED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

_Socket = zmq.Socket[bytes]

_ADVICE = {
    errno.EADDRINUSE: "is in use: stop the program that has it, or set another address",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.ENODEV: "is not an address of this machine",
    errno.ENAMETOOLONG: "has a path longer than 107 characters",
    errno.EACCES: "may not be bound by this user: take a port above 1023 or another folder",
}


class Sockets:
    """XPUB for events, ROUTER for control, PUB for bulk; ZAP and monitors beside them.

    Every socket is bound when the constructor returns, or none is and BusError is raised. keys:
    None runs without CURVE. `endpoints`: field -> address with the port that was given for `*`.
    `rejected`: handshakes refused since start.
    """

    def __init__(self, config: BusConfig, keys: ServerKeys | None) -> None:
        self._context: zmq.Context[_Socket] = zmq.Context()
        self._linger_ms = config.linger_ms
        self._hwm = config.hwm
        self._poller = zmq.Poller()
        self._monitors: dict[str, _Socket] = {}
        self._sockets: dict[str, _Socket] = {}
        self._auth: zmq.auth.Authenticator | None = None
        self.endpoints: dict[str, str] = {}
        self.rejected = 0
        try:
            if keys is not None:
                self._auth = zmq.auth.Authenticator(self._context)
                self._auth.start()
                self._auth.configure_curve(domain=_ZAP_DOMAIN, location=keys.clients)
                self._poller.register(self._auth.zap_socket, zmq.POLLIN)
            for name, address in bound_addresses(config).items():
                self._bind(name, address, keys)
        except BaseException:  # a stop too: no address may stay taken
            self.close()
            raise

    def _bind(self, name: str, address: str, keys: ServerKeys | None) -> None:
        kind = {"bus.events": zmq.XPUB, "bus.control": zmq.ROUTER, "bus.bulk": zmq.PUB}[name]
        socket = self._sockets[name] = self._context.socket(kind)
        socket.set(zmq.LINGER, self._linger_ms)
        socket.set(zmq.SNDHWM, self._hwm)
        socket.set(zmq.IPV6, "[" in address)
        if kind == zmq.XPUB:
            socket.set(zmq.XPUB_VERBOSE, 1)
            socket.set(zmq.MAXMSGSIZE, _MAX_SUBSCRIPTION_BYTES)
        elif kind == zmq.ROUTER:
            socket.set(zmq.RCVHWM, MAX_PENDING)
            socket.set(zmq.MAXMSGSIZE, _MAX_CONTROL_BYTES)
            # A client that lost its connection may come back under its own identity at once.
            socket.set(zmq.ROUTER_HANDOVER, 1)
        if keys is not None:
            socket.set(zmq.CURVE_SERVER, 1)
            socket.set(zmq.CURVE_PUBLICKEY, keys.public)
            socket.set(zmq.CURVE_SECRETKEY, keys.secret)
            socket.set(zmq.ZAP_DOMAIN, _ZAP_DOMAIN.encode())
            socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._monitors[name] = socket.get_monitor_socket(_REJECTED)
        for readable in (self._monitors[name], *([] if kind == zmq.PUB else [socket])):
            self._poller.register(readable, zmq.POLLIN)
        if _ipc_in_use(address):
            raise BusError(f"{name}: {address} {_ADVICE[errno.EADDRINUSE]}")
        try:
            socket.bind(address)
        except zmq.ZMQError as exc:
            advice = _ADVICE.get(exc.errno or 0, f"cannot be bound: {exc.strerror}")
            raise BusError(f"{name}: {address} {advice}") from exc
        self.endpoints[name] = socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def add_wakeup(self, fd: int) -> None:
        """Let `wait` return when file descriptor `fd` can be read."""
        self._poller.register(fd, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> None:
        """Block until any socket, or the wake-up, has something, at most `timeout_ms`."""
        self._poller.poll(timeout_ms)

    def publish(self, frames: Sequence[bytes], *, bulk: bool = False) -> bool:
        """Send one message; a subscriber that is `hwm` messages behind misses it. Never blocks.

        False where the socket is turned off.
        """
        socket = self._sockets.get("bus.bulk" if bulk else "bus.events")
        if socket is None:
            return False
        socket.send_multipart(frames, zmq.NOBLOCK)
        return True

    def answer(self, frames: Sequence[bytes]) -> None:
        """Send a reply; one to a client that has left is discarded. Never blocks."""
        self._sockets["bus.control"].send_multipart(frames, zmq.NOBLOCK)

    def requests(self) -> Iterator[list[bytes]]:
        """Frames of each waiting control message, the client's identity first."""
        if "bus.control" in self._sockets:
            yield from _waiting(self._sockets["bus.control"])

    def new_subscriptions(self) -> set[str]:
        """The topic prefixes that have been subscribed to since the last call."""
        # An XPUB message is b"\x01" + prefix for a subscription, b"\x00" + prefix for its end.
        return {
            frames[0][1:].decode("utf-8", "replace")
            for frames in _waiting(self._sockets["bus.events"])
            if frames[0][:1] == b"\x01"
        }

    def authenticate(self) -> None:
        """Answer what libzmq asks about clients that are connecting."""
        if self._auth is None:
            return
        for frames in _waiting(self._auth.zap_socket):
            # A coroutine in name only: with a folder of keys it never awaits, so one step ends it.
            handling = self._auth.handle_zap_message(frames)
            try:
                handling.send(None)
            except StopIteration:
                continue

    def count_rejections(self) -> None:
        """Take note of refused handshakes; the 1st, 2nd, 4th, 8th, ... is logged."""
        for name, monitor in self._monitors.items():
            while monitor.poll(0):
                event = recv_monitor_message(monitor)
                self.rejected += 1
                # A refused client tries again ten times a second, so not each is logged.
                if self.rejected & (self.rejected - 1) == 0:
                    reason = zmq.Event(event["event"]).name or "HANDSHAKE_FAILED"
                    logger.warning(
                        "%s: a client was refused (%s), %d so far: wrong, unknown or no CURVE key",
                        name,
                        reason.removeprefix("EVENT_").lower(),
                        self.rejected,
                    )

    def close(self) -> None:
        """Close all, waiting up to `linger_ms` for what is on its way. Idempotent."""
        if self._context.closed:
            return
        for name, monitor in self._monitors.items():
            self._sockets[name].disable_monitor()
            monitor.close(0)
        for socket in self._sockets.values():
            socket.close()
        if self._auth is not None:
            self._auth.stop()
        self._context.term()


def _waiting(socket: _Socket) -> Iterator[list[bytes]]:
    for _ in range(_TURN):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _ipc_in_use(address: str) -> bool:
    # libzmq unlinks a path before it binds it, and so would silently take a running agent's place.
    scheme, _, path = address.partition("://")
    if scheme != "ipc" or path.startswith(("@", "*")):
        return False
    with posix_socket.socket(posix_socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
