"""Which ONNX Runtime execution provider runs a tower, and how its session is set up."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, ModelMismatch

__all__ = ["AUTO", "PROVIDERS", "choose_providers", "make_session", "runtime_errors"]

logger = logging.getLogger(__name__)

AUTO = "auto"

# Short names, best first: the order "auto" tries.
PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """ONNX Runtime names in the order to try, ending with the CPU as the fallback for operators.

    wanted: short or ONNX Runtime names, or "auto" alone. Raises ConfigError for a provider that
    is unknown or that the installed onnxruntime was not built with.
    """
    if tuple(wanted) == (AUTO,):
        return [name for name in PROVIDERS.values() if name in available]
    chosen = [PROVIDERS.get(name, name) for name in wanted]
    for name, asked in zip(chosen, wanted, strict=True):
        if name not in available:
            short = [key for key, value in PROVIDERS.items() if value in available]
            raise ConfigError(
                f"provider: {asked!r} is not in the installed onnxruntime, "
                f"expected {AUTO} or one of {', '.join(short)}"
            )
    if not chosen:
        raise ConfigError(f"provider: none given, expected {AUTO} or a name")
    return list(dict.fromkeys([*chosen, PROVIDERS["cpu"]]))


def runtime_errors() -> tuple[type[Exception], ...]:
    """Everything ONNX Runtime raises: its classes share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    raised = (value for value in vars(state).values() if isinstance(value, type))
    return tuple(error for error in raised if issubclass(error, Exception))


def make_session(path: Path, options: RuntimeOptions, precision: str = "fp32") -> Any:
    """An `onnxruntime.InferenceSession` for a checked file of that precision.

    Raises ConfigError for a provider that is not there or does not start or a cache that cannot
    be written, ModelMismatch for a file that ONNX Runtime cannot load.
    """
    import onnxruntime

    providers = choose_providers(options.providers, onnxruntime.get_available_providers())
    own: dict[str, dict[str, str]] = {}
    if PROVIDERS["cuda"] in providers:
        # By default CUDA may round fp32 products to TF32 (10 bits of mantissa), which would make
        # the same tower give other vectors there. From the documentation; not run on a GPU.
        own[PROVIDERS["cuda"]] = {"use_tf32": "0"}
    if PROVIDERS["tensorrt"] in providers:
        # Engines are of one build of onnxruntime, and told apart by no content of the file.
        cache = options.cache and options.cache / f"ort-{onnxruntime.__version__}" / path.stem
        own[PROVIDERS["tensorrt"]] = _tensorrt(cache, precision)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.use_deterministic_compute = True
    settings.log_severity_level = 3
    # A waiting pool that spins takes the cores from the drivers, and collapses when shared; the
    # pool that sessions can share cannot be kept from it (docs/adr/0007).
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=[(name, own.get(name, {})) for name in providers]
        )
    except runtime_errors() as exc:
        reason = " ".join(str(exc).split())
        raise ModelMismatch(f"{path}: onnxruntime cannot load it ({reason})") from exc
    used = session.get_providers()[0]
    if used != providers[0]:
        # onnxruntime only prints it when a provider it was built with finds no driver.
        if tuple(options.providers) != (AUTO,):
            raise ConfigError(
                f"provider: {options.providers[0]!r} does not start here (onnxruntime fell back "
                f"to {used}), expected one whose device and libraries are present"
            )
        logger.warning("%s does not start here, running on %s", providers[0], used)
    return session


def _tensorrt(cache: Path | None, precision: str) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider, as its documentation names them; not run on a
    GPU. Raises ConfigError where `cache` cannot be written.
    """
    options = {"trt_fp16_enable": str(precision == "fp16")}
    if cache is not None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache):
                pass
        except OSError as exc:
            raise ConfigError(
                f"cache: {cache} cannot be written ({exc.strerror}), expected a folder of ours"
            ) from exc
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache),
        }
    return options
