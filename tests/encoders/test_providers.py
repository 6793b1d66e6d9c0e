from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import encoders.models.compact
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, ModelMismatch
from encoders.providers import choose_providers, make_session, runtime_errors
from encoders.space import open_space

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
IMU = Path(encoders.models.compact.__file__).parent / "imu.onnx"


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([CPU], [CPU]),
        (["AzureExecutionProvider", CPU], [CPU]),
        ([CPU, CUDA], [CUDA, CPU]),
        ([CUDA, TENSORRT, CPU], [TENSORRT, CUDA, CPU]),
        ([CPU, OPENVINO, CUDA], [CUDA, OPENVINO, CPU]),
    ],
)
def test_auto_takes_the_best_there_is(available: list[str], expected: list[str]) -> None:
    assert choose_providers(("auto",), available) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("cpu",), [CPU]),
        ((CPU,), [CPU]),
        (("cuda",), [CUDA, CPU]),
        ((CUDA, "cpu"), [CUDA, CPU]),
        (("openvino", "cuda"), [OPENVINO, CUDA, CPU]),
        (("XnnpackExecutionProvider",), ["XnnpackExecutionProvider", CPU]),
    ],
)
def test_a_choice_is_kept_in_its_order(wanted: tuple[str, ...], expected: list[str]) -> None:
    available = [TENSORRT, CUDA, OPENVINO, "XnnpackExecutionProvider", CPU]
    assert choose_providers(wanted, available) == expected


@pytest.mark.parametrize("wanted", [("cuda",), ("cpu", CUDA), ("gpu",), ("auto", "cuda"), ()])
def test_a_provider_that_is_not_there_is_told(wanted: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"provider: .*expected auto or") as caught:
        choose_providers(wanted, ["AzureExecutionProvider", CPU])
    assert "\n" not in str(caught.value)


def test_the_session_is_set_up_as_asked() -> None:
    options = make_session(IMU, RuntimeOptions(threads=2)).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.use_deterministic_compute
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


class TestTensorRT:
    """Which options it is given; the runtime here has no TensorRT, so they are looked at."""

    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, str]]]:
        given: list[dict[str, dict[str, str]]] = []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])

        class Session:
            def __init__(self, path: str, settings: Any, providers: list[tuple[str, dict]]) -> None:
                given.append(dict(providers))

            def get_providers(self) -> list[str]:
                return [TENSORRT, CUDA, CPU]

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        return given

    def test_without_a_cache(self, given: list[dict[str, dict[str, str]]]) -> None:
        make_session(IMU, RuntimeOptions())
        make_session(IMU, RuntimeOptions(), "fp16")
        assert given == [
            {TENSORRT: {"trt_fp16_enable": half}, CUDA: {"use_tf32": "0"}, CPU: {}}
            for half in ("False", "True")
        ]

    def test_engines_are_kept_in_a_folder_of_the_file_and_the_runtime(
        self, given: list[dict[str, dict[str, str]]], tmp_path: Path
    ) -> None:
        make_session(IMU, RuntimeOptions(cache=tmp_path / "new"), "int8")
        folder = tmp_path / "new" / f"ort-{onnxruntime.__version__}" / "imu"
        assert folder.is_dir()
        assert given[0][TENSORRT] == {
            "trt_fp16_enable": "False",
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder),
        }
        assert not list(folder.iterdir())

    def test_and_of_the_space(self, given: list[dict[str, dict[str, str]]], tmp_path: Path) -> None:
        space = open_space("compact", RuntimeOptions(cache=tmp_path))
        with pytest.raises(AttributeError):  # the session is no more than a spy
            space.encoder("imu").load()
        engines = Path(given[0][TENSORRT]["trt_engine_cache_path"])
        assert engines.relative_to(tmp_path).parts[0] == space.identity

    @pytest.mark.usefixtures("given")
    def test_a_cache_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(ConfigError, match=r"cache: .*file.*cannot be written \(Not a dir") as e:
            make_session(IMU, RuntimeOptions(cache=tmp_path / "file"))
        assert "\n" not in str(e.value)


def test_the_cpu_needs_no_cache(tmp_path: Path) -> None:
    make_session(IMU, RuntimeOptions(providers=("cpu",), cache=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelMismatch, match=r"x.onnx: onnxruntime cannot load it") as caught:
        make_session(tmp_path / "x.onnx", RuntimeOptions())
    assert "\n" not in str(caught.value)


def test_every_error_of_the_runtime_is_known() -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = runtime_errors()
    assert {state.Fail, state.InvalidArgument, state.InvalidProtobuf, state.NoSuchFile} <= {*known}
    assert not {Exception, OSError, ValueError} & {*known}


class TestProviderThatDoesNotStart:
    """onnxruntime then falls back to the CPU by itself, with only a print."""

    @pytest.fixture(autouse=True)
    def _no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = onnxruntime.InferenceSession
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])

        def fall_back(path: str, settings: Any, providers: list[tuple[str, dict]]) -> Any:
            assert providers == [(CUDA, {"use_tf32": "0"}), (CPU, {})]
            return real(path, settings, providers=[CPU])

        monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)

    def test_is_an_error_where_it_was_asked_for(self) -> None:
        with pytest.raises(ConfigError, match=r"'cuda' does not start here .*fell back to CPU"):
            make_session(IMU, RuntimeOptions(providers=("cuda",)))

    def test_is_a_warning_where_it_was_not(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            session = make_session(IMU, RuntimeOptions())
        assert session.get_providers() == [CPU]
        assert f"{CUDA} does not start here, running on {CPU}" in caplog.text
