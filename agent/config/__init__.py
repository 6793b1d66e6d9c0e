"""The config's types: frozen, defaults in one place, unknown fields refused.

agent/config_file.py reads them from YAML. Paths are `Path`: those in a file are relative to it.
"""

from __future__ import annotations

from agent.config.queries import AskedConfig, GateConfig, LogCut, PartConfig, QueryConfig, Taught
from agent.config.sections import (
    BusConfig,
    Config,
    ConfigFile,
    CurveConfig,
    DriverConfig,
    DriverEntry,
    MatchConfig,
    RecordConfig,
    SpaceConfig,
    TowerConfig,
)

__all__ = [
    "AskedConfig",
    "BusConfig",
    "Config",
    "ConfigFile",
    "CurveConfig",
    "DriverConfig",
    "DriverEntry",
    "GateConfig",
    "LogCut",
    "MatchConfig",
    "PartConfig",
    "QueryConfig",
    "RecordConfig",
    "SpaceConfig",
    "Taught",
    "TowerConfig",
]
