"""ImageBind in eager torch with nothing made faster: what the exported towers are compared with.

Written from the facts of the published model alone (arXiv 2305.05665, the names and shapes of its
checkpoint), and apart from encoders/imagebind, so that it is a second opinion on the numbers and a
fair yardstick for the speed: sequence-first attention by torch's own function, a still given
twice to a 3-D convolution, every token through every block, all 77 text positions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from agent.extras import needs_extra
from agent.types import Array
from encoders.imagebind.dims import GEOMETRY, TowerDims

with needs_extra("export"):
    import torch
    from torch import Tensor
    from torch.nn import functional as F

__all__ = ["plain_forward", "plain_log_mel", "plain_picture"]

STEM_EPS, EPS = 1e-5, 1e-6
MAX_SCALE = 100.0

SIDE = 224
RGB_MEAN = (0.48145466, 0.4578275, 0.40821073)
RGB_STD = (0.26862954, 0.26130258, 0.27577711)

# Kaldi's fbank as ImageBind asks for it, at 16 kHz.
RATE_HZ, FRAME, HOP, FFT, MELS = 16_000, 400, 160, 512, 128
LOW_HZ, PRE_EMPHASIS = 20.0, 0.97
COLUMNS, MEAN, TWO_STD = 204, -4.268, 9.138


def plain_forward(tower: str, tensors: Mapping[str, Tensor], dims: TowerDims, x: Tensor) -> Tensor:
    """float32 (n, out): what the published model gives for `x`, scaled as published.

    tensors: one tower's, float32, by the checkpoint's names. x: float32 (n, 3, 224, 224) for
    vision, (n, 1, 128, 204) for audio, (n, 1, 224, 224) for depth and thermal, (n, 6, 2000) for
    imu; int64 (n, 77) for text; clips as (n, clips, ...), vision's with frames after the colours.
    Clips are averaged after scaling. Vision's vectors are of length 1.
    """
    clips = x.ndim >= 5
    items = x.flatten(0, 1) if clips else x
    with torch.inference_mode():
        vectors = _vectors(tower, tensors, dims, items)
        return vectors.view(*x.shape[:2], -1).mean(1) if clips else vectors


def _vectors(tower: str, tensors: Mapping[str, Tensor], dims: TowerDims, x: Tensor) -> Tensor:
    head, last = f"modality_heads.{tower}", "3" if tower == "imu" else "2"
    tokens = _trunk(tower, tensors, dims, _tokens(tower, tensors, x))
    if tower == "text":
        pooled = tokens[torch.arange(len(x)), x.argmax(-1)]  # the end token has the largest id
        pooled = _norm(tensors, f"{head}.proj.0", pooled, EPS)
        out = F.linear(pooled, tensors[f"{head}.proj.1.weight"])
    else:
        pooled = _norm(tensors, f"{head}.0", tokens, EPS)[:, 0]
        out = F.linear(pooled, tensors[f"{head}.{last}.weight"])
    unit = F.normalize(out, dim=-1)
    if tower == "vision":
        return unit
    scale = tensors[f"modality_postprocessors.{tower}.1.log_logit_scale"]
    return unit * scale.exp().clamp(max=MAX_SCALE)


def _tokens(tower: str, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """(n, tokens, width), with class token and positions."""
    pre, geometry = f"modality_preprocessors.{tower}", GEOMETRY[tower]
    stem = tensors[f"{pre}.{geometry.stem}.weight"]
    if tower == "text":
        return F.embedding(x, stem) + tensors[f"{pre}.pos_embed"]
    if tower == "vision":
        clip = x.unsqueeze(2) if x.ndim == 4 else x
        if clip.shape[2] == 1:
            clip = clip.repeat(1, 1, 2, 1, 1)
        patches = F.conv3d(clip, stem, stride=stem.shape[2:]).flatten(2).transpose(1, 2)
    elif tower == "imu":
        ticks = stem.shape[1] // x.shape[1]
        patches = F.linear(x.unfold(-1, ticks, ticks).transpose(1, 2).flatten(2), stem)
    else:
        stride = 10 if tower == "audio" else 16
        patches = F.conv2d(x, stem, stride=stride).flatten(2).transpose(1, 2)
    if geometry.stem_norm:
        norm = f"{pre}.{geometry.stem.partition('.')[0]}.norm_layer"
        patches = _norm(tensors, norm, patches, STEM_EPS)
    holder = pre if tower == "imu" else f"{pre}.pos_embedding_helper"
    first = tensors[f"{pre}.cls_token"].expand(len(x), -1, -1)
    return torch.cat([first, patches], 1) + tensors[f"{holder}.pos_embed"]


def _trunk(tower: str, tensors: Mapping[str, Tensor], dims: TowerDims, tokens: Tensor) -> Tensor:
    """(n, tokens, width) through every block, pre-norm."""
    trunk = f"modality_trunks.{tower}"
    mask = tensors[f"modality_preprocessors.{tower}.mask"] if tower == "text" else None
    if tower == "vision":
        tokens = _norm(tensors, f"{trunk}.pre_transformer_layer.0", tokens, EPS)
    x = tokens.transpose(0, 1)
    for number in range(dims.blocks):
        block = f"{trunk}.blocks.{number}"
        y = _norm(tensors, f"{block}.norm_1", x, EPS)
        attended, _ = F.multi_head_attention_forward(
            y,
            y,
            y,
            dims.width,
            dims.heads,
            tensors[f"{block}.attn.in_proj_weight"],
            tensors[f"{block}.attn.in_proj_bias"],
            tensors.get(f"{block}.attn.bias_k"),
            tensors.get(f"{block}.attn.bias_v"),
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=tensors[f"{block}.attn.out_proj.weight"],
            out_proj_bias=tensors[f"{block}.attn.out_proj.bias"],
            training=False,
            need_weights=False,
            attn_mask=mask,
        )
        x = x + attended
        y = _norm(tensors, f"{block}.norm_2", x, EPS)
        y = F.gelu(_linear(tensors, f"{block}.mlp.fc1", y))
        x = x + _linear(tensors, f"{block}.mlp.fc2", y)
    return x.transpose(0, 1)


def _linear(tensors: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def _norm(tensors: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"], eps)


def plain_picture(frame: Array) -> Tensor:
    """float32 (3, 224, 224) of uint8 (height, width, 3) RGB, as the published loader makes it.

    Pillow's bicubic to a short side of 224, the long side rounded down; the middle square; 0..1;
    CLIP's mean and deviation.
    """
    height, width = frame.shape[:2]
    short = min(width, height)
    wide, high = SIDE * width // short, SIDE * height // short
    left, top = round((wide - SIDE) / 2), round((high - SIDE) / 2)
    picture = Image.fromarray(frame).resize((wide, high), Image.Resampling.BICUBIC)
    square = picture.crop((left, top, left + SIDE, top + SIDE))
    x = torch.from_numpy(np.array(square)).permute(2, 0, 1).to(torch.float32) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (RGB_MEAN, RGB_STD))
    return (x - mean) / std


def plain_log_mel(waveform: Tensor) -> Tensor:
    """float32 (1, 128, 204), normalised, of float32 (samples,) in -1..1 at 16 kHz.

    Kaldi's fbank as ImageBind's loader calls it: 25 ms frames every 10 ms, whole ones only, no
    dither; each without its mean, pre-emphasised by 0.97, under a Hann window; power of a
    512-point FFT; 128 triangles in mel (1127 ln(1 + f/700)) from 20 Hz to 8 kHz; natural log,
    floored at float32's epsilon; padded with 0 to 204 columns; (x + 4.268) / 9.138. A function
    with nothing kept between calls, as torchaudio's compliance.kaldi.fbank is: window and
    triangles are made each time.
    """
    frames = (waveform - waveform.mean()).unfold(0, FRAME, HOP)
    frames = frames - frames.mean(1, keepdim=True)
    before = torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = (frames - PRE_EMPHASIS * before) * torch.hann_window(FRAME, periodic=False)
    power = torch.fft.rfft(frames, FFT).abs() ** 2
    mel = (power @ _triangles().T).clamp(min=torch.finfo(torch.float32).eps).log().T
    padded = F.pad(mel, (0, max(0, COLUMNS - mel.shape[1])))[:, :COLUMNS]
    return ((padded - MEAN) / TWO_STD).unsqueeze(0)


def _triangles() -> Tensor:
    """(mels, bins of the FFT): weights by mel distance, as Kaldi's, not by Hz."""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = mel(torch.tensor([LOW_HZ, RATE_HZ / 2]))
    edges = torch.linspace(0, 1, MELS + 2) * (high - low) + low
    at = mel(torch.arange(FFT // 2 + 1) * (RATE_HZ / FFT))
    step = (high - low) / (MELS + 1)
    up, down = (at - edges[:-2, None]) / step, (edges[2:, None] - at) / step
    return torch.minimum(up, down).clamp(min=0)
