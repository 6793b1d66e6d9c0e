"""Who may connect: loopback and ipc by default, CURVE or an explicit `insecure` beyond them.

CURVE (https://rfc.zeromq.org/spec/26/) encrypts, and lets in only clients whose public key is in
a folder; the keys are files as `zmq.auth.create_certificates` writes them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import BusConfig, CurveConfig
from agent.errors import ConfigError

__all__ = [
    "ServerKeys",
    "bound_addresses",
    "check_addresses",
    "is_local",
    "load_key",
    "server_keys",
]

# A CURVE key is 32 bytes, 40 characters in Z85 (https://rfc.zeromq.org/spec/32/).
_Z85_LENGTH = 40

_ADDRESS = re.compile(r"tcp://.+:((?P<port>[0-9]+)|\*)|ipc://.+")


@dataclass(frozen=True)
class ServerKeys:
    """The agent's own key pair (Z85) and the folder of public keys that are let in.

    The secret is left out of repr, so that it cannot reach a log or a message.
    """

    public: bytes
    secret: bytes = field(repr=False)
    clients: Path


def bound_addresses(config: BusConfig) -> dict[str, str]:
    """Field -> address of each socket that `config` turns on."""
    fields = {
        "bus.events": config.events,
        "bus.control": config.control,
        "bus.bulk": config.bulk,
    }
    return {name: address for name, address in fields.items() if address is not None}


def is_local(address: str) -> bool:
    """True where only this machine can connect: ipc, or tcp on a loopback address."""
    scheme, _, rest = address.partition("://")
    if scheme == "ipc":
        return True
    host = rest.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # an interface's name, a wildcard or a host's name
        return False


def check_addresses(config: BusConfig) -> list[str]:
    """The fields, such as "bus.events", whose sockets other machines can reach unprotected.

    Raises ConfigError for what is no tcp or ipc address, and where one is exposed and `insecure`
    was not asked for.
    """
    for name, address in bound_addresses(config).items():
        match = _ADDRESS.fullmatch(address)
        # libzmq itself takes port 99999 for 34463, its last 16 bits.
        if match is None or int(match["port"] or 0) > 65535:
            raise ConfigError(
                f"{name}: {address!r} must be tcp://HOST:PORT with a port of 0..65535 or *, "
                "or ipc://PATH"
            )
    if config.curve is not None:
        return []
    exposed = {f: a for f, a in bound_addresses(config).items() if not is_local(a)}
    if config.insecure:
        return list(exposed)
    for name, address in exposed.items():
        raise ConfigError(
            f"{name}: {address} can be reached from other machines: "
            "set bus.curve (docs/wire-contract.md), or bus.insecure: true to run it open"
        )
    return []


def load_key(path: Path, what: str, *, secret: bool) -> tuple[bytes, bytes]:
    """(public, secret) of a certificate file, each 40 bytes of Z85; secret is b"" if not wanted.

    Raises ConfigError naming `what` and the file; the message never holds a key.
    """
    from zmq.auth import load_certificate
    from zmq.utils import z85

    try:
        public, private = load_certificate(path)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{what}: {path} is not a readable ZeroMQ certificate") from exc
    keys = (public, (private or b"") if secret else b"")
    for key in keys if secret else keys[:1]:
        try:
            valid = len(key) == _Z85_LENGTH and len(z85.decode(key)) == 32
        except (KeyError, ValueError):  # KeyError: z85's answer to a character it does not know
            valid = False
        if not valid:
            kind = "secret and public keys" if secret else "public key"
            raise ConfigError(f"{what}: {path} must hold valid {kind} of 40 Z85 characters each")
    return keys


def server_keys(curve: CurveConfig) -> ServerKeys:
    """Read and check every key file. Raises ConfigError naming the field and the file."""
    public, secret = load_key(curve.server_key, "bus.curve.server_key", secret=True)
    files = sorted(curve.clients.glob("*.key")) if curve.clients.is_dir() else []
    if not files:
        raise ConfigError(
            f"bus.curve.clients: {curve.clients} must be a folder with at least one client's *.key"
        )
    for path in files:
        load_key(path, "bus.curve.clients", secret=False)
    return ServerKeys(public, secret, curve.clients)
