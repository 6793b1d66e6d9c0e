"""Config: what is right is read, and what is wrong is one line that says where and what."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import jsonschema
import pytest
import yaml

from agent import plugins
from agent.config import Config, QueryConfig
from agent.config_file import build_config, config_schema, convert_section, load_config
from agent.errors import ConfigError
from tests.fakes.driver import FakePlugin

GOOD = """\
agent: home
space:
  path: compact
  lateness_s: 2e-1
  towers:
    audio: {hop_s: 0.5}
    image: {enabled: false}
drivers:
  card:
    kind: fake
    device: hw:0
    gain: 1.5
    stale_s: 3
    bands:
      low: {low_hz: 1, high_hz: 2}
      high: {low_hz: 3, high_hz: 4}
  back:
    kind: fake
    device: hw:1
    required: false
queries:
  - text: glass breaking
    gate: {enter: 0.8, exit: 0.5}
  - id: bark
    text: a dog barks
    senses: [audio]
match:
  max_age_s: 3
bus:
  score_hz: 4
"""

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _fake_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings the kind `fake`."""
    point = EntryPoint("fake", "tests.fakes.driver:FakePlugin", "sensebind.drivers")

    def entry_points(group: str) -> list[EntryPoint]:
        return [point] if group == "sensebind.drivers" else []

    monkeypatch.setattr(plugins, "entry_points", entry_points)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "home.yaml"
        file.write_text(text)
        return file

    return write


def refusal(file: Path, *overrides: str) -> str:
    """The one line of a config that is refused, without the folder it is in."""
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{file.parent}/", "")


def test_a_good_config_is_read_with_its_defaults(write: Write) -> None:
    config: Config = load_config(write(GOOD))
    assert config.file.agent == "home"
    assert config.file.space.lateness_s == 0.2
    assert config.file.space.towers["audio"].hop_s == 0.5
    assert config.file.queries[0].gate is not None
    assert config.file.queries[0].gate.enter == 0.8
    assert config.file.bus.events == "tcp://127.0.0.1:5556"
    card, back = config.drivers
    assert (card.name, card.plugin, card.config.stale_s) == ("card", FakePlugin, 3.0)
    assert (card.settings.device, card.settings.gain) == ("hw:0", 1.5)
    assert card.settings.bands["high"].low_hz == 3
    assert card.config.required is True
    assert back.config.required is False


def test_the_digest_is_of_the_content(write: Write) -> None:
    digest = load_config(write(GOOD)).digest
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert load_config(write("# the same\n" + GOOD)).digest == digest
    assert load_config(write(GOOD), ["bus.score_hz=5"]).digest != digest


def test_an_empty_file_is_a_config_of_defaults(write: Write) -> None:
    for text in ("", "# nothing yet\n"):
        config = load_config(write(text))
        assert config.drivers == ()
        assert config.file.agent == "sensebind"


def test_paths_are_relative_to_the_config(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    text = """\
drivers:
  a: {kind: fake, device: x, file: clips/a.wav}
  b: {kind: fake, device: x, file: /data/b.wav}
queries: [{audio: ~/knock.wav}]
"""
    config = load_config(write(text))
    assert config.drivers[0].settings.file == tmp_path / "clips" / "a.wav"
    assert config.drivers[1].settings.file == Path("/data/b.wav")
    assert config.file.queries[0].audio == Path("/home/someone/knock.wav")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("compact", "compact"), ("./compact", "{}/compact"), ("../a/B", "{}/../a/B"), ("/a", "/a")],
)
def test_a_model_folder_is_relative_to_the_config_but_a_bare_name_ships(
    write: Write, tmp_path: Path, path: str, expected: str
) -> None:
    config = load_config(write(f"space: {{path: {path}}}"))
    assert config.file.space.path == expected.format(tmp_path)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.e-3", ".1e-2", "+1e-3", "0.001", "1.0e-3"])
def test_a_number_may_be_written_as_people_do(write: Write, number: str) -> None:
    assert load_config(write(f"match: {{z_scale: {number}}}")).file.match.z_scale == 0.001


@pytest.mark.parametrize("word", ["1e", "e3", "1e3x", "hw:1e3", "1.2.3e4"])
def test_a_word_stays_a_word(write: Write, word: str) -> None:
    text = f"drivers: {{card: {{kind: fake, device: {word}}}}}"
    assert load_config(write(text)).drivers[0].settings.device == word


# (what replaces what in GOOD, what is said)
BAD = {
    "unknown field": (
        ("score_hz: 4", "scores_hz: 4"),
        "home.yaml:30: bus.scores_hz: unknown field; did you mean 'score_hz'?",
    ),
    "unknown field at the top": (
        ("agent: home", "agents: home"),
        "home.yaml:1: agents: unknown field; did you mean 'agent'?",
    ),
    "unknown field like no other": (
        ("score_hz: 4", "xyzzy: 4"),
        "home.yaml:30: bus.xyzzy: unknown field; expected one of control, curve, enabled, events, "
        "hwm, insecure, linger_ms, bulk, preview_hz, score_hz",
    ),
    "text in a number": (
        ("max_age_s: 3", "max_age_s: three"),
        "home.yaml:28: match.max_age_s: got 'three', expected float",
    ),
    "bool in a number": (
        ("score_hz: 4", "score_hz: yes"),
        "home.yaml:30: bus.score_hz: got True, expected float",
    ),
    "number in a text": (
        ("agent: home", "agent: 12"),
        "home.yaml:1: agent: got 12, expected str",
    ),
    "fraction in a whole number": (
        ("score_hz: 4", "hwm: 1.5"),
        "home.yaml:30: bus.hwm: got 1.5, expected int",
    ),
    "number out of range": (
        ("lateness_s: 2e-1", "lateness_s: -1"),
        "home.yaml:4: space.lateness_s: got -1, expected float >= 0.0",
    ),
    "number out of range in a list": (
        ("enter: 0.8", "enter: 1.5"),
        "home.yaml:23: queries[0].gate.enter: got 1.5, expected float <= 1.0",
    ),
    "thresholds the wrong way round": (
        ("exit: 0.5", "exit: 0.9"),
        "home.yaml:23: queries[0].gate: exit 0.9 must not be above enter 0.8",
    ),
    "infinity": (
        ("max_age_s: 3", "max_age_s: .inf"),
        "home.yaml:28: match.max_age_s: got inf, expected a finite number",
    ),
    "not a number": (
        ("gain: 1.5", "gain: .nan"),
        "home.yaml:12: drivers.card.gain: got nan, expected a finite number",
    ),
    "an empty section": (
        ("bus:\n  score_hz: 4", "bus:"),
        "home.yaml:29: bus: got None, expected object",
    ),
    "a list for a section": (
        ("match:\n  max_age_s: 3", "match: [3]"),
        "home.yaml:27: match: got [3], expected object",
    ),
    "bad value among towers": (
        ("audio: {hop_s: 0.5}", "audio: {hop_s: often}"),
        "home.yaml:6: space.towers.audio.hop_s: got 'often', expected float | null",
    ),
    "unknown field in the second tower": (
        ("image: {enabled: false}", "image: {enable: false}"),
        "home.yaml:7: space.towers.image.enable: unknown field; did you mean 'enabled'?",
    ),
    "missing required field of a driver": (
        ("    device: hw:0\n", ""),
        "home.yaml:9: drivers.card: field 'device' is missing",
    ),
    "missing kind": (
        ("    kind: fake\n    device: hw:0", "    device: hw:0"),
        "home.yaml:9: drivers.card: field 'kind' is missing",
    ),
    "a driver that is no mapping": (
        ("  back:\n    kind: fake\n    device: hw:1\n    required: false\n", "  back: fake\n"),
        "home.yaml:17: drivers.back: got 'fake', expected object",
    ),
    "bad field of a driver": (
        ("gain: 1.5", "gain: loud"),
        "home.yaml:12: drivers.card.gain: got 'loud', expected float",
    ),
    "unknown field of a driver": (
        ("gain: 1.5", "gian: 1.5"),
        "home.yaml:12: drivers.card.gian: unknown field; did you mean 'gain'?",
    ),
    "misspelt common field of a driver": (
        ("stale_s: 3", "stale: 3"),
        "home.yaml:13: drivers.card.stale: unknown field; did you mean 'stale_s'?",
    ),
    "bad common field of a driver": (
        ("stale_s: 3", "stale_s: 0"),
        "home.yaml:13: drivers.card.stale_s: got 0, expected float > 0.0",
    ),
    "bad value in a driver's own mapping": (
        ("high: {low_hz: 3, high_hz: 4}", "high: {low_hz: x, high_hz: 4}"),
        "home.yaml:16: drivers.card.bands.high.low_hz: got 'x', expected float",
    ),
    "bad name in a driver's own mapping": (
        ("high: {low_hz: 3, high_hz: 4}", "High!: {low_hz: 3, high_hz: 4}"),
        "home.yaml:16: drivers.card.bands.High!: got 'High!', expected str matching regex "
        "'^[a-z0-9_]+$'",
    ),
    "a driver's own rule": (
        ("low: {low_hz: 1, high_hz: 2}", "low: {low_hz: 3, high_hz: 2}"),
        "home.yaml:15: drivers.card.bands.low: low_hz 3.0 must not be above high_hz 2.0",
    ),
    "an empty path": (
        ("gain: 1.5", "file: ''"),
        "home.yaml:12: drivers.card.file: got '', expected a path",
    ),
    "bad name of an agent": (
        ("agent: home", "agent: My Home"),
        "home.yaml:1: agent: got 'My Home', expected str matching regex '^[a-z0-9_]+$'",
    ),
    "bad name of a driver": (
        ("  card:", "  Card-1:"),
        "home.yaml:9: drivers.Card-1: driver name: 'Card-1' must be lower-case letters, digits and "
        "underscores",
    ),
    "a name that is a number": (
        ("  card:", "  12:"),
        "home.yaml:8: drivers: got the name 12, expected a text; put it in quotes",
    ),
    "two sources in a query": (
        ("text: a dog barks", "text: a dog barks\n    image: dog.jpg"),
        "home.yaml:24: queries[1]: exactly one of text, audio, image, depth, "
        "thermal, imu, file, log, vector, taught, sum, when is needed, "
        "got ['text', 'image']",
    ),
    "no source in a query": (
        ("    text: a dog barks\n", ""),
        "home.yaml:24: queries[1]: exactly one of text, audio, image, depth, "
        "thermal, imu, file, log, vector, taught, sum, when is needed, "
        "got none",
    ),
    "empty text": (
        ("text: a dog barks", "text: ' '"),
        "home.yaml:24: queries[1]: text is empty",
    ),
    "two queries of one id": (
        ("id: bark", "id: glass_breaking"),
        "home.yaml:24: queries[1]: id 'glass_breaking' is there twice; give each query an id of "
        "its own",
    ),
    "two texts of one id": (
        ("id: bark\n    text: a dog barks", "text: Glass BREAKING!"),
        "home.yaml:24: queries[1]: id 'glass_breaking' is there twice; give each query an id of "
        "its own",
    ),
    "a field written twice": (
        ("score_hz: 4", "score_hz: 4\n  score_hz: 5"),
        "home.yaml:31: bus.score_hz: is written twice; the first would be lost",
    ),
    "a driver written twice": (
        ("  back:", "  card:"),
        "home.yaml:17: drivers.card: is written twice; the first would be lost",
    ),
    "an impossible date": (
        ("agent: home", "agent: 2026-02-30"),
        "home.yaml: not YAML: day is out of range for month",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line(name: str, write: Write) -> None:
    (old, new), expected = BAD[name]
    assert GOOD.count(old) == 1
    said = refusal(write(GOOD.replace(old, new)))
    if name == "unknown field like no other":
        assert sorted(re.findall(r"\w+", said)) == sorted(re.findall(r"\w+", expected))
    else:
        assert said == expected or said.startswith(expected + " in ")


def test_an_unknown_kind_is_said_with_the_known_ones(write: Write) -> None:
    said = refusal(write(GOOD.replace("kind: fake\n    device: hw:0", "kind: fakd\n    device: a")))
    assert re.fullmatch(
        r"home\.yaml:10: drivers\.card\.kind: got 'fakd', expected one of .*\bfake\b.*", said
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("agent: [home", r"home\.yaml:1: not YAML: expected ',' or '\]', but got '<stream end>'"),
        ("agent: home\n\tbus: 1", r"home\.yaml:2: not YAML: .*'\\t'.*"),
        ("a: 1\n---\nb: 2", r"home\.yaml:2: not YAML: but found another document"),
        ("agent: \x00", r"home\.yaml: not YAML: unacceptable character #x0000: .*"),
        ("agent: *home", r"home\.yaml:1: not YAML: found undefined alias 'home'"),
        ("agent: !python/none x", r"home\.yaml:1: not YAML: could not determine a constructor .*"),
        ("{[1]: 2}", r"home\.yaml:1: not YAML: found unhashable key"),
        ("drivers: &a {b: *a}", r"home\.yaml: nested too deep, or an alias that holds itself"),
        pytest.param(
            "[" * 2000, r"home\.yaml: nested too deep, or an alias that holds itself", id="deep"
        ),
        ("- agent", r"home\.yaml: the top is a list, expected 'drivers:' and such"),
        ("hello", r"home\.yaml: the top is a str, expected 'drivers:' and such"),
    ],
)
def test_what_is_no_config_at_all_is_said_in_one_line(
    text: str, expected: str, write: Write
) -> None:
    assert re.fullmatch(expected, refusal(write(text)))


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "none.yaml: no such config file"
    assert "cannot be read as text: [Errno 21] Is a directory" in refusal(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(binary).startswith("binary.yaml: cannot be read as text: 'utf-8' codec")


def test_overrides_set_fields(write: Write) -> None:
    config = load_config(
        write(GOOD),
        [
            "bus.score_hz=1e-3",
            "queries.0.text=a door",
            "queries.1={text: a cat}",
            "match.gate.hold_s=3",
            "space.towers.audio={hop_s: 1}",
            "drivers.card.device=a=b",
            "record.path=logs",
        ],
    )
    assert config.file.bus.score_hz == 0.001
    assert [query.text for query in config.file.queries] == ["a door", "a cat"]
    assert config.file.match.gate.hold_s == 3
    assert config.file.space.towers["audio"].hop_s == 1
    assert config.drivers[0].settings.device == "a=b"
    assert config.file.record.path is not None
    assert config.file.record.path.name == "logs"


def test_an_override_fills_an_empty_section(write: Write) -> None:
    assert load_config(write("bus:\n"), ["bus.hwm=7"]).file.bus.hwm == 7


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("bus.score_hz", "--set 'bus.score_hz': expected FIELD=VALUE, for example bus.score_hz=4"),
        ("=4", "--set '=4': expected FIELD=VALUE, for example bus.score_hz=4"),
        ("bus..x=4", "--set 'bus..x=4': expected FIELD=VALUE, for example bus.score_hz=4"),
        ("bus.score_hz=[", "--set 'bus.score_hz=[': the value is not YAML"),
        ("agent=2026-02-30", "--set 'agent=2026-02-30': the value is not YAML"),
        ("queries.2.text=x", "--set 'queries.2.text=x': there is no '2' to set"),
        ("queries.one=x", "--set 'queries.one=x': there is no 'one' to set"),
        ("agent.x=1", "--set 'agent.x=1': there is no 'x' to set"),
        (
            "bus.score_hz=often",
            "--set 'bus.score_hz=often': bus.score_hz: got 'often', expected float",
        ),
        (
            "queries.1.gate.enter=2",
            "--set 'queries.1.gate.enter=2': queries[1].gate.enter: got 2, expected float <= 1.0",
        ),
        (
            "bus={score_hz: x}",
            "--set 'bus={score_hz: x}': bus.score_hz: got 'x', expected float",
        ),
        ("bus.scor_hz=4", "--set 'bus.scor_hz=4': bus.scor_hz: unknown field; did you mean "
         "'score_hz'?"),
    ],
)  # fmt: skip
def test_a_bad_override_is_said_as_it_was_given(override: str, expected: str, write: Write) -> None:
    assert refusal(write(GOOD), override) == expected


@pytest.mark.parametrize("pad", [0, 40])
def test_a_password_is_not_said(pad: int, write: Write) -> None:
    """Nor half of one, where a long value is cut."""
    url = f"rtsp://{'u' * pad}:hunter2-{'p' * pad}@door/1"
    assert "hunter2" not in refusal(write(GOOD.replace("gain: 1.5", f"gain: {url}")))
    assert "hunter2" not in refusal(write(GOOD), f"drivers.card.gain={url}")
    assert "hunter2" not in refusal(write(GOOD), f"agent.x={url}")


def test_a_config_that_is_built_is_not_changed_by_it() -> None:
    raw = {"bus": {"hwm": 5}}
    assert build_config(raw, ["bus.hwm=6"]).file.bus.hwm == 6
    assert raw == {"bus": {"hwm": 5}}


def test_a_section_from_the_control_channel_is_checked_alike() -> None:
    assert convert_section({"text": "a dog"}, QueryConfig, "query").text == "a dog"
    with pytest.raises(ConfigError, match=r"^query: txt: unknown field; did you mean 'text'\?$"):
        convert_section({"txt": "a dog"}, QueryConfig, "query")
    with pytest.raises(ConfigError, match=r"^query: got 'a dog', expected object$"):
        convert_section("a dog", QueryConfig, "query")
    with pytest.raises(ConfigError, match=r"not\[0\]\.txt: unknown field; did you mean 'text'"):
        convert_section({"text": "a", "not": [{"txt": "b"}]}, QueryConfig, "query")


class TestSchema:
    """The JSON Schema that editors check configs with."""

    @pytest.fixture
    def check(self) -> Callable[[str], None]:
        schema = config_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        return lambda text: validator.validate(yaml.safe_load(text) or {})

    def test_it_takes_what_we_take(self, check: Callable[[str], None]) -> None:
        check(GOOD.replace("2e-1", "0.2"))
        check("")

    @pytest.mark.parametrize(
        "name",
        [
            "unknown field",
            "unknown field at the top",
            "text in a number",
            "bool in a number",
            "number in a text",
            "fraction in a whole number",
            "number out of range",
            "number out of range in a list",
            "an empty section",
            "a list for a section",
            "unknown field in the second tower",
            "missing required field of a driver",
            "missing kind",
            "a driver that is no mapping",
            "bad field of a driver",
            "unknown field of a driver",
            "misspelt common field of a driver",
            "bad common field of a driver",
            "bad value in a driver's own mapping",
            "bad name of an agent",
            "bad name of a driver",
        ],
    )
    def test_it_refuses_what_we_refuse(self, name: str, check: Callable[[str], None]) -> None:
        (old, new), _ = BAD[name]
        with pytest.raises(jsonschema.ValidationError):
            check(GOOD.replace(old, new).replace("2e-1", "0.2"))
