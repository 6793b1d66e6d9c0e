"""Rules of the house that a linter does not know: threads, time, and the public surface."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.relative_to(ROOT)
    for folder in ("agent", "drivers", "encoders", "tools")
    for path in (ROOT / folder).rglob("*.py")
)

# The public names of the parts that others build on: a change here is a change of the contract.
PINNED = {
    "agent.clock": ["NS_PER_S", "Clock", "ManualClock", "SystemClock", "from_s", "to_s"],
    "agent.config": [
        "AskedConfig", "BusConfig", "Config", "ConfigFile", "CurveConfig", "DriverConfig",
        "DriverEntry", "GateConfig", "LogCut", "MatchConfig", "PartConfig", "QueryConfig",
        "RecordConfig", "SpaceConfig", "Taught", "TowerConfig",
    ],
    "agent.config_file": ["build_config", "config_schema", "convert_section", "load_config"],
    "agent.errors": [
        "AgentError", "BadData", "BusError", "ConfigError", "DeviceBusy", "DeviceLost",
        "DeviceNotFound", "DriverError", "EncodeFailed", "EncoderError", "EndOfStream",
        "ModelMismatch", "ModelMissing", "NotDue", "Overrun", "ReadTimeout", "RecordError",
        "SpaceMismatch",
    ],
    "agent.explain": ["Place", "explain"],
    "agent.extras": ["needs_extra"],
    "agent.isolation.driver": ["IsolatedDriver", "hang_s", "make_driver"],
    "agent.match.answers": ["Answers", "prior_tail"],
    "agent.match.agreement": ["Agreement", "BoolArray", "Float64Array", "Key"],
    "agent.match.doubts": ["Doubts"],
    "agent.match.stillness": ["Stillness"],
    "agent.match.calibrated": ["Calibration", "Key", "calibration_of", "read_calibration"],
    "agent.match.calibration": ["Null", "allowed", "gate_of", "logistic", "rarity"],
    "agent.match.combined": ["Combined", "weighted_sum"],
    "agent.match.fusion": ["RATE_KIND", "Fusion"],
    "agent.match.gate": ["Gate", "Transition"],
    "agent.match.grammar": [
        "And", "Atom", "For", "Node", "Or", "Then", "Unless", "atoms_of", "parse_when", "reach_ns",
    ],
    "agent.match.matcher": ["EventContext", "Matcher"],
    "agent.match.meaning": [
        "CONTRAST", "DECIMALS", "Meaning", "Part", "Terms", "Together", "terms_of",
    ],
    "agent.match.queries": ["Embed", "Query", "QuerySet"],
    "agent.match.recent": ["HISTORY_S", "Recent"],
    "agent.match.tail": [
        "CLUSTER_S", "EXCESS", "FALSE_SHARE", "OVER_Z", "SHARE", "Rows", "Tail", "bank_tail",
    ],
    "agent.match.taught": ["arrays_of", "read_taught", "taught_embedding"],
    "agent.match.teaching": [
        "ALPHAS", "MAX_EXAMPLES", "Lesson", "Method", "Ridge", "mean_vector", "ridge", "teach",
    ],
    "agent.ordinary": ["nearness", "ordinary"],
    "agent.redact": ["is_url", "redact", "redact_text"],
    "agent.plugins": ["find", "list_spaces", "load", "open_space"],
    "agent.match.temporal": ["EVER", "Follower", "Known", "Span", "Track", "evaluate"],
    "agent.match.whens": ["KIND", "Whens"],
    "agent.stream.budget": ["GRACE_NS", "Budget", "HopReason"],
    "agent.stream.change": ["Change", "Fingerprint", "fingerprint"],
    "agent.stream.clips": ["Clips"],
    "agent.stream.clocksync": ["ClockEstimate", "ClockSync"],
    "agent.stream.lane": ["Lane"],
    "agent.stream.pump": ["Pump", "StreamState"],
    "agent.stream.ring": ["Ring"],
    "agent.stream.turns": ["LONG_RATIO", "Turns", "slots_for"],
    "agent.stream.windows": ["WindowCounts", "Windows"],
    "agent.supervise": ["ChildProcess", "ThreadGroup"],
    "agent.types": [
        "NAME_PATTERN", "Array", "Embedding", "Extrinsics", "Int64Array", "Intrinsics", "Region",
        "Sample", "Settings", "StreamInfo", "Views", "Window", "WindowSpec", "check_name",
        "read_only", "slug",
    ],
    "agent.contracts": [
        "MAX_FILE_BYTES", "Device", "Driver", "Encoder", "RuntimeOptions", "Space", "TextEncoder",
    ],
    "agent.wire": [
        "VERSION", "Attachment", "ClockState", "EmbeddingMessage", "Event", "Evidence", "Health",
        "HopLatency", "Latency", "Model", "Preview", "QueryRef", "Reply", "Request",
        "RequestError", "Score", "ScoreMessage", "SensorStatus", "Span", "StreamHealth", "Time",
        "WireStruct", "encode", "json_schemas",
    ],
}  # fmt: skip


def named(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def attributes(tree: ast.Module) -> set[str]:
    """`threading.Thread` and the like, wherever it stands."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def imports(tree: ast.Module) -> set[str]:
    """`time` of `import time`, `time.sleep` of `from time import sleep`."""
    out: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            out |= {f"{node.module}.{alias.name}" for alias in node.names}
    return out


def test_only_supervise_starts_threads() -> None:
    starters = {"threading.Thread", "threading.Timer", "os.fork"}

    def starts(path: Path) -> bool:
        tree = named(path)
        names = attributes(tree) | imports(tree)
        pools = any(name.startswith(("multiprocessing", "concurrent")) for name in names)
        return pools or bool(names & starters)

    assert [str(path) for path in MODULES if starts(path)] == ["agent/supervise.py"]


def test_only_supervise_starts_processes_of_the_agent() -> None:
    own = [path for path in MODULES if path.parts[0] == "agent"]
    starters = [str(path) for path in own if "subprocess" in imports(named(path))]
    assert starters == ["agent/supervise.py"]


def test_only_clock_reads_time() -> None:
    def reads_time(path: Path) -> bool:
        tree = named(path)
        from_time = any(name.split(".")[0] == "time" for name in imports(tree))
        return from_time or bool(attributes(tree) & {"datetime.now", "datetime.utcnow"})

    assert [str(path) for path in MODULES if reads_time(path)] == ["agent/clock.py"]


def test_every_name_of_the_core_is_pinned() -> None:
    core = {"agent.stream", "agent.match"}
    modules = {
        ".".join(path.with_suffix("").parts)
        for path in MODULES
        if path.name != "__init__.py" and ".".join(path.parts[:2]) in core
    }
    assert modules == {name for name in PINNED if ".".join(name.split(".")[:2]) in core}


@pytest.mark.parametrize("name", PINNED)
def test_the_public_names_are_pinned(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__ == PINNED[name]
    assert all(hasattr(module, public) for public in PINNED[name])


def test_every_module_with_definitions_says_what_is_public() -> None:
    """Packages and `python -m` entry points have nothing of their own to give."""

    def silent(path: Path) -> bool:
        body = named(path).body
        defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)
        assigned = {
            target.id
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return defines and "__all__" not in assigned

    assert [str(path) for path in MODULES if silent(path)] == []


def test_every_package_is_in_the_wheel() -> None:
    """The list in pyproject is explicit; a package left out would be missed by users only."""
    listed = re.search(
        r"^packages = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S
    )
    assert listed is not None
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("agent", "drivers", "encoders", "tools", "configs")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == found
