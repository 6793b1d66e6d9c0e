"""An Xsens MTi at 200 Hz behind PATH, in a process of its own; says when its message 0 is due."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fakes.imu_messages import at_rate
from tests.fakes.serial_device import SerialDevice

RATE_HZ = 200

if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    device = SerialDevice(path, at_rate("xsens", RATE_HZ), RATE_HZ)
    device.plug()
    while not device.sent_ns:
        pass
    print(device.start_ns, flush=True)
    sys.stdin.read()  # until it is killed, or the test ends
    device.unplug()
