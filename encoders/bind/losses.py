"""What a new tower is taught by: contrast in a batch, cosine to its anchor, a bank of anchors.

All take unit vectors, float32 or float16, reckon in float32 and give a float32 scalar.
Needs the extra `bind`.
"""

from __future__ import annotations

import math

from agent.extras import needs_extra

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = [
    "Temperature",
    "anchor_cross_entropy",
    "cosine_regression",
    "info_nce",
    "kept_negatives",
    "soft_targets",
]

# Of logits over cosines. CLIP clips at 100, to keep its training stable (Radford et al. 2021,
# arXiv:2103.00020, section 2.5); below 1 a softmax over cosines tells nothing apart.
MIN_SCALE, MAX_SCALE = 1.0, 100.0


class Temperature(nn.Module):
    """What cosines are divided by before a softmax: `initial`, fixed or learned as a logarithm
    (CLIP). ImageBind's authors found fixed better for audio and depth (Girdhar et al. 2023,
    arXiv:2305.05665, section 5.1).
    """

    def __init__(self, initial: float, learned: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(initial)), requires_grad=learned)

    def forward(self) -> Tensor:
        """The scale, 1 / temperature."""
        return self.log_scale.exp()

    @torch.no_grad()
    def clamp(self) -> None:
        """Bring a learned one back into 1/100..1; called after each step of the optimiser."""
        self.log_scale.clamp_(math.log(MIN_SCALE), math.log(MAX_SCALE))


def kept_negatives(groups: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
    """bool (n, n): whether j is a negative of i. Never one of the same recording, i itself among
    them, nor of the same label: they are alike, and pushing them apart would teach noise.

    groups, labels: int64 (n,); -1 is no label. rows: only those i, all where None.
    """
    own = slice(None) if rows is None else rows
    same_label = (labels[own, None] == labels) & (labels >= 0)
    return (groups[own, None] != groups) & ~same_label


def info_nce(
    vectors: Tensor,
    anchors: Tensor,
    scale: Tensor | float,
    negatives: Tensor | None = None,
    hardness: float = 0.0,
) -> Tensor:
    """Mean of the two cross-entropies of finding i's anchor by its vector and the reverse (InfoNCE,
    van den Oord et al. 2018, arXiv:1807.03748; symmetric as in CLIP).

    vectors, anchors: (n, dim). negatives: bool (n, n) as `kept_negatives` gives, all but i where
    None. hardness: beta >= 0, a negative counts as exp(beta * cosine) over the mean of that, as a
    constant (Robinson et al. 2021, arXiv:2010.04592, with the debiasing term left out); 0 counts
    all alike.
    """
    cosines = vectors.float() @ anchors.float().T
    if negatives is None:
        negatives = ~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    forth = _one_way(cosines, scale, negatives, hardness)
    return (forth + _one_way(cosines.T, scale, negatives.T, hardness)) / 2


def _one_way(cosines: Tensor, scale: Tensor | float, negatives: Tensor, hardness: float) -> Tensor:
    logits = cosines * scale
    if hardness:
        weights = (hardness * cosines.detach()).masked_fill(~negatives, -torch.inf)
        number = negatives.sum(1, keepdim=True).clamp(min=1)
        # Without a negative the mean is of nothing; what stands there is masked below.
        mean = (weights.logsumexp(1, keepdim=True) - number.log()).nan_to_num(neginf=0.0)
        logits = logits + (hardness * cosines.detach() - mean)
    own = cosines.diagonal() * scale
    others = logits.masked_fill(~negatives, -torch.inf)
    return (torch.cat([own[:, None], others], 1).logsumexp(1) - own).mean()


def cosine_regression(vectors: Tensor, anchors: Tensor) -> Tensor:
    """Mean of 1 - cosine, 0..2. vectors, anchors: (n, dim)."""
    return (1 - (vectors.float() * anchors.float()).sum(1)).mean()


def anchor_cross_entropy(
    vectors: Tensor, bank: Tensor, targets: Tensor, scale: Tensor | float
) -> Tensor:
    """Mean cross-entropy of a softmax over the cosines with every anchor of a bank.

    vectors: (n, dim). bank: (m, dim). targets: (n, m), rows of sum 1.
    """
    logits = (vectors.float() @ bank.float().T) * scale
    return -(targets.float() * logits.log_softmax(1)).sum(1).mean()


def soft_targets(
    own: Tensor, bank: Tensor, share: float = 0.75, temperature: float = 0.07
) -> Tensor:
    """float32 (n, m), rows of sum 1: `share` on a sample's own anchors, the rest over the bank by
    nearness to their mean, so that a near miss costs less than a far one.

    own: (n, m) weights >= 0 of the sample's anchors, some above 0 in each row. bank: (m, dim). The
    defaults are the prototype's for photographs; for sounds it had a share of 0.85.
    """
    weights = own.float() / own.float().sum(1, keepdim=True)
    mean = nn.functional.normalize(weights @ bank.float(), dim=1)
    near = ((mean @ bank.float().T) / temperature).softmax(1)
    return share * weights + (1 - share) * near
