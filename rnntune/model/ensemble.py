"""Several networks as one: the weighted mean of their probabilities.

Source: Caruana et al. 2004, https://doi.org/10.1145/1015330.1015432.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn

from rnntune.model.network import Classifier

__all__ = ["Ensemble", "Network"]
_CLOSEST = 1e-7  # of a float32 to 0 and 1


class Ensemble(nn.Module):
    """Networks whose probabilities are averaged; it is scored, not trained.

    Args:
        members: networks of the same words, classes and task; at least one.
        weights: of each in the mean, in any unit.
    """

    shares: torch.Tensor

    def __init__(self, members: Sequence[Classifier], weights: Sequence[float]) -> None:
        super().__init__()
        assert members
        assert len(members) == len(weights)
        self.members = nn.ModuleList(members)
        self.task = members[0].task
        self.num_classes = members[0].num_classes
        shares = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("shares", (shares / shares.sum()).float(), persistent=False)

    def forward(
        self, ids: torch.Tensor, lengths: torch.Tensor, *, same_length: bool = False
    ) -> torch.Tensor:
        """Logits whose probabilities are the weighted mean of the members' probabilities.

        Args:
            ids: int64 (batch, time).
            lengths: int64 (batch,), on the CPU.
            same_length: all lengths are equal.

        Returns:
            float32 (batch, classes); a temperature divides them as those of one network.
        """
        logits = torch.stack(
            [member(ids, lengths, same_length=same_length) for member in self.members]
        )  # (members, batch, classes)
        if self.task.is_multi_label:
            mean = torch.einsum("m,mbc->bc", self.shares, logits.sigmoid())
            return mean.logit(eps=_CLOSEST)
        return (logits.log_softmax(dim=-1) + self.shares.log()[:, None, None]).logsumexp(dim=0)


Network: TypeAlias = Classifier | Ensemble
"""What gives logits of texts: one network, or several as one."""
