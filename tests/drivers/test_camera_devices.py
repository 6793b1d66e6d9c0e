"""Finding V4L2 cameras, in a made tree of /sys and /dev: no machine without one has V4L2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.errors import DeviceNotFound
from drivers import camera
from drivers._camera import devices
from drivers._camera.devices import find_cameras, only_camera
from drivers.camera import PLUGIN, CameraConfig


class Tree:
    """`plug` adds what the kernel and udev do for one USB camera: a picture and a metadata node."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.dev = root / "sys/class/video4linux", root / "dev"
        self._devices = root / "sys/devices/usb1"
        for folder in (self.sysfs, self.dev):
            folder.mkdir(parents=True)

    def plug(self, number: int, port: str, name: str = "C920", serial: str = "") -> None:
        usb = self._devices / port
        interface = usb / f"{port}:1.0"
        interface.mkdir(parents=True)
        (usb / "idVendor").write_text("046d\n")
        (usb / "idProduct").write_text("082d\n")
        if serial:
            (usb / "serial").write_text(f"{serial}\n")
        for index in (0, 1):
            node = self.node(number + index, name, str(index))
            (node / "device").symlink_to(interface)
            self.link("by-id", f"usb-046d_{name}{serial and '_' + serial}-video-index{index}")
            self.link("by-path", f"pci-0000:00:14.0-usb-0:{port}:1.0-video-index{index}")

    def node(self, number: int, name: str, index: str = "0") -> Path:
        node = self.sysfs / f"video{number}"
        node.mkdir()
        (node / "name").write_text(f"{name}\n")
        (node / "index").write_text(f"{index}\n")
        (self.dev / node.name).touch()
        self._newest = node.name
        return node

    def link(self, kind: str, name: str) -> None:
        link = self.dev / "v4l" / kind / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # udev: the last one with a name has it
        link.symlink_to(f"../../{self._newest}")

    def find(self) -> list[camera.Device]:
        return find_cameras(self.sysfs, self.dev)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    assert find_cameras(tmp_path / "no", tmp_path / "neither") == []


def test_a_serial_number_tells_a_camera_wherever_it_is_plugged_in(tree: Tree) -> None:
    tree.plug(0, "1-1", serial="A1")
    (device,) = tree.find()
    link = tree.dev / "v4l/by-id/usb-046d_C920_A1-video-index0"
    assert (device.kind, device.name) == ("camera", "C920")
    assert device.identity == f"by-id:{link.name}"
    assert device.settings == {"device": str(link)}
    assert (device.by_port, device.problem) == (False, "")
    assert CameraConfig(**device.settings | {"device": "/dev/v4l/by-id/x"}).source


@pytest.mark.parametrize("serial", ["", "SN0001"])
def test_twins_are_told_by_their_ports(tree: Tree, serial: str) -> None:
    tree.plug(0, "1-1", serial=serial)
    tree.plug(2, "1-2", serial=serial)
    devices = tree.find()
    assert [d.identity for d in devices] == [
        "by-path:pci-0000:00:14.0-usb-0:1-1:1.0-video-index0",
        "by-path:pci-0000:00:14.0-usb-0:1-2:1.0-video-index0",
    ]
    assert all(d.by_port for d in devices)
    assert [os.path.realpath(d.settings["device"]) for d in devices] == [
        str(tree.dev / "video0"),
        str(tree.dev / "video2"),
    ]


def test_without_a_serial_number_the_port_tells_even_the_only_one(tree: Tree) -> None:
    tree.plug(0, "1-1")
    (device,) = tree.find()
    assert device.by_port
    assert "by-path" in device.settings["device"]


def test_cameras_stand_in_the_order_of_their_numbers(tree: Tree) -> None:
    for number, serial in ((10, "B"), (2, "A")):
        tree.plug(number, f"1-{number}", serial=serial)
    assert [d.identity[-14:] for d in tree.find()] == ["A-video-index0", "B-video-index0"]


def test_a_node_without_links_has_a_problem(tree: Tree) -> None:
    tree.node(0, "bm2835 mmal")
    (device,) = tree.find()
    assert device.settings == {"device": str(tree.dev / "video0")}
    assert "may be another camera tomorrow" in device.problem


def test_who_may_not_open_it_is_told_the_group(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.plug(0, "1-1", serial="A1")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (device,) = tree.find()
    assert device.problem.endswith("not allowed; join its group: sudo usermod -aG video $USER")


def test_a_container_without_the_node(tree: Tree) -> None:
    tree.plug(0, "1-1", serial="A1")
    (tree.dev / "video0").unlink()
    assert f"--device {tree.dev / 'video0'}" in tree.find()[0].problem


def test_a_jetsons_raw_sensor_is_opened_by_another_way(tree: Tree) -> None:
    tree.node(0, "vi-output, imx219 9-0010")
    assert "nvarguscamerasrc" in tree.find()[0].problem


class TestTheOnlyCamera:
    def test_there_is_one(self, tree: Tree) -> None:
        tree.plug(0, "1-1", serial="A1")
        assert only_camera(tree.find(), "camera cam: auto").endswith("_A1-video-index0")

    def test_of_several_none_is_guessed_and_each_is_named(
        self, tree: Tree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("cv2", reason="needs pip install 'sensebind[camera]'")
        tree.plug(0, "1-1", serial="A1")
        tree.plug(2, "1-2")
        monkeypatch.setattr(devices, "SYSFS", tree.sysfs)
        monkeypatch.setattr(devices, "DEV", tree.dev)
        assert PLUGIN.discover() == tree.find()
        driver = PLUGIN("cam", CameraConfig(device="auto"), SystemClock())
        with pytest.raises(DeviceNotFound, match="cam: auto: means no one camera of:") as refused:
            driver.connect()
        for device in tree.find():
            assert device.identity in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_there_is_none(self) -> None:
        with pytest.raises(DeviceNotFound, match="cam: auto: there is no camera under /dev"):
            only_camera([], "camera cam: auto")
