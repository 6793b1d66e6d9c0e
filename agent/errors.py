"""The one tree of errors. Nothing else is raised on purpose anywhere in the project.

    AgentError
    |-- ConfigError                exit 2: bad input, said before any device opens
    |-- DriverError
    |   |-- DeviceNotFound         exit 2 at start; later retried with back-off
    |   |-- DeviceBusy             as DeviceNotFound
    |   |-- DeviceLost             reconnect with back-off
    |   |-- ReadTimeout            N in a row count as lost
    |   |   `-- NotDue             a recording's next block is due later; never counts as lost
    |   |-- BadData                the block is dropped and counted
    |   `-- EndOfStream            not a fault: a file has played to its end
    |-- EncoderError
    |   |-- ModelMissing           exit 3
    |   |-- ModelMismatch          exit 3
    |   `-- EncodeFailed           the window is dropped and counted
    |-- Overrun                    a ring no longer holds what was asked for
    |-- SpaceMismatch              vectors of two spaces were about to be compared
    |-- BusError                   exit 4: a socket cannot be opened
    `-- RecordError                exit 5: a log cannot be written

Anything else that escapes is a bug: the group stops, a traceback, exit 1.
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "BadData",
    "BusError",
    "ConfigError",
    "DeviceBusy",
    "DeviceLost",
    "DeviceNotFound",
    "DriverError",
    "EncodeFailed",
    "EncoderError",
    "EndOfStream",
    "ModelMismatch",
    "ModelMissing",
    "NotDue",
    "Overrun",
    "ReadTimeout",
    "RecordError",
    "SpaceMismatch",
]


class AgentError(Exception):
    """Root of the tree; `exit_code` is what the command ends with when it escapes."""

    exit_code = 1


class ConfigError(AgentError):
    """Bad input. The message names the field or file, the value, and what was expected."""

    exit_code = 2


class DriverError(AgentError):
    """A source of samples failed."""

    exit_code = 2


class DeviceNotFound(DriverError):
    """The device or file is not there, or may not be opened."""


class DeviceBusy(DriverError):
    """The device is there and another program has it."""


class DeviceLost(DriverError):
    """The device was connected and is gone; connect again."""


class ReadTimeout(DriverError):
    """Nothing arrived within the timeout; the device may still be well."""


class NotDue(ReadTimeout):
    """Alive and well, but with nothing to give: a paced source before its next block is due, a
    receiver without a fix.
    """


class BadData(DriverError):
    """A block has the wrong shape, dtype or values, or a stamp that cannot be true."""


class EndOfStream(DriverError):
    """A finite source has given everything it has."""


class EncoderError(AgentError):
    """A model could not be loaded or run."""

    exit_code = 3


class ModelMissing(EncoderError):
    """A model folder or one of its files is not there."""


class ModelMismatch(EncoderError):
    """A model file is not the one its manifest names (sha256, inputs, dimensions)."""


class EncodeFailed(EncoderError):
    """One batch could not be encoded; the rest of the run goes on."""


class Overrun(AgentError):
    """The writer has overwritten ticks that a reader asked for."""


class SpaceMismatch(AgentError):
    """Vectors of two different spaces cannot be compared."""

    exit_code = 3


class BusError(AgentError):
    """A ZeroMQ socket could not be bound, secured or used."""

    exit_code = 4


class RecordError(AgentError):
    """A log could not be opened or written."""

    exit_code = 5
