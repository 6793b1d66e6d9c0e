"""Where a tower is trained and in what numbers: on a GPU in mixed precision, else plainly.

Micikevicius et al. 2018, arXiv:1710.03740: products in 16 bits, weights and sums in 32. **Untested
on hardware**: nobody has run a training of this package on a GPU.

Needs the extra `bind`.
"""

from __future__ import annotations

from agent.extras import needs_extra

with needs_extra("bind"):
    import torch

__all__ = ["half_type", "training_device"]


def training_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_type(device: torch.device) -> torch.dtype | None:
    """What products are reckoned in: bfloat16 where the GPU has it, which has float32's range;
    float16 on older ones, whose gradients must be scaled; None for float32, on a CPU.
    """
    if device.type != "cuda":
        return None
    emulated = not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if emulated else torch.bfloat16
