from __future__ import annotations

from pathlib import Path

import pytest
from zmq.auth import create_certificates

from agent.config import BusConfig, CurveConfig
from agent.errors import ConfigError
from agent.publish.security import bound_addresses, check_addresses, is_local, server_keys

OPEN = "tcp://0.0.0.0:5556"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5556", True),
        ("tcp://127.8.8.8:*", True),
        ("tcp://localhost:5556", True),
        ("tcp://[::1]:5556", True),
        ("ipc:///tmp/agent", True),
        ("ipc://@agent", True),
        ("tcp://*:5556", False),
        ("tcp://0.0.0.0:5556", False),
        ("tcp://[::]:5556", False),
        ("tcp://eth0:5556", False),
        ("tcp://192.168.1.4:5556", False),
        ("tcp://127.0.0.1.example.org:5556", False),
    ],
)
def test_local_is_what_other_machines_cannot_reach(address: str, local: bool) -> None:
    assert is_local(address) is local


@pytest.mark.parametrize("field", ["events", "control", "bulk"])
def test_an_exposed_address_needs_curve_or_insecure(field: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^bus\.{field}: tcp://0\.0\.0\.0:5556 can be reached"):
        check_addresses(BusConfig(**{field: OPEN}))
    assert check_addresses(BusConfig(**{field: OPEN}, insecure=True)) == [f"bus.{field}"]
    curve = CurveConfig(server_key=tmp_path, clients=tmp_path)
    assert check_addresses(BusConfig(**{field: OPEN}, curve=curve)) == []


@pytest.mark.parametrize(
    "address",
    ["", "5556", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "carrier://pigeon", "inproc://here"],
)
def test_what_is_no_address_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^bus\.control: .* must be tcp://HOST:PORT"):
        check_addresses(BusConfig(control=address, insecure=True))


def test_sockets_that_are_off_have_no_address() -> None:
    assert list(bound_addresses(BusConfig(control=None))) == ["bus.events"]


@pytest.fixture
def curve(tmp_path: Path) -> CurveConfig:
    (tmp_path / "clients").mkdir()
    create_certificates(tmp_path, "agent")
    create_certificates(tmp_path / "clients", "robot")
    return CurveConfig(server_key=tmp_path / "agent.key_secret", clients=tmp_path / "clients")


def test_keys_are_read_and_the_secret_stays_out_of_sight(curve: CurveConfig) -> None:
    keys = server_keys(curve)
    assert len(keys.public) == len(keys.secret) == 40
    assert keys.secret.decode() in curve.server_key.read_text()
    assert keys.secret.decode() not in repr(keys)


def test_a_missing_server_key_is_named(curve: CurveConfig) -> None:
    curve.server_key.unlink()
    with pytest.raises(ConfigError, match=r"^bus\.curve\.server_key: .*agent\.key_secret"):
        server_keys(curve)


@pytest.mark.parametrize("old", ["secret-key", "public-key"])
@pytest.mark.parametrize("value", ['= "short"', '= "' + "\x7f" * 40 + '"', '= "' + "~" * 40 + '"'])
def test_a_bad_server_key_is_named_and_never_shown(
    curve: CurveConfig, old: str, value: str
) -> None:
    secret = server_keys(curve).secret.decode()
    lines = curve.server_key.read_text().splitlines()
    curve.server_key.write_text(
        "\n".join(f"{old} {value}" if line.strip().startswith(old) else line for line in lines)
    )
    with pytest.raises(ConfigError, match=r"bus\.curve\.server_key: .*40 Z85") as caught:
        server_keys(curve)
    assert secret not in str(caught.value)


def test_the_public_file_is_no_server_key(curve: CurveConfig) -> None:
    public = CurveConfig(server_key=curve.server_key.with_suffix(".key"), clients=curve.clients)
    with pytest.raises(ConfigError, match="secret and public keys"):
        server_keys(public)


def test_a_folder_without_client_keys_lets_nobody_in_and_says_so(curve: CurveConfig) -> None:
    (curve.clients / "robot.key").unlink()
    with pytest.raises(ConfigError, match=r"bus\.curve\.clients: .*at least one"):
        server_keys(curve)
    missing = CurveConfig(server_key=curve.server_key, clients=curve.clients / "none")
    with pytest.raises(ConfigError, match=r"bus\.curve\.clients"):
        server_keys(missing)


def test_a_bad_client_key_is_named(curve: CurveConfig) -> None:
    (curve.clients / "zebra.key").write_text("nothing here\n")
    with pytest.raises(ConfigError, match=r"bus\.curve\.clients: .*zebra\.key"):
        server_keys(curve)
