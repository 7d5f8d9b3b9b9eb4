"""Readouts: from the core's map, which all units share, to each unit's answer. All members of an ensemble at once.

Every parameter has the member as its first axis. `members` is the slice of members that a call computes; maps hold the channels of those
members side by side (batch member*channel row column).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Generators = list[torch.Generator]
"""One a member, so that what a member draws does not depend on who is trained beside it."""


class FactorisedReadout(nn.Module):
    """A unit is a weight a channel times a weight a place: channel + row x column numbers instead of their product (Klindt et al. 2017)."""

    def __init__(self, n_units: int, channels: int, rows: int, columns: int, draw: Generators):
        super().__init__()
        self.mixing = nn.Parameter(normal(draw, n_units, channels) / channels**0.5)
        self.spatial = nn.Parameter(1 + 0.2 * normal(draw, n_units, rows * columns))  # times 1 / places: a flat average is all ones
        self.bias = nn.Parameter(torch.zeros(len(draw), n_units, 1))

    def forward(self, maps: Float[Tensor, "batch channels row column"], members: slice, noise: Generators | None) -> Tensor:
        """Maps to z-scored answers (member unit batch)."""
        mixing, spatial = self.mixing[members], self.spatial[members]
        by_place = maps.permute(0, 2, 3, 1).reshape(-1, len(mixing), mixing.shape[2]).transpose(0, 1)
        at_places = torch.bmm(by_place, mixing.transpose(1, 2)).unflatten(1, (len(maps), -1))
        answers = (at_places * spatial.transpose(1, 2)[:, None]).mean(dim=2)
        return answers.transpose(1, 2) + self.bias[members]


class GaussianReadout(nn.Module):
    """A unit looks at one place of the map, learned with an uncertainty: FullGaussian2d of Lurz et al. 2021 (ICLR), as in neuralpredictors.

    In training the place is drawn anew for every image from the unit's own Gaussian, whose gradient finds the receptive field; in
    evaluation the unit looks at the mean.
    """

    START_SD = 0.3
    """SD of the places in the beginning, half map widths; Lurz et al. start at 0.1 to 0.3."""

    def __init__(self, n_units: int, channels: int, rows: int, columns: int, draw: Generators):
        super().__init__()
        self.mixing = nn.Parameter(normal(draw, n_units, channels) / channels**0.5)
        self.place = nn.Parameter(0.1 * normal(draw, n_units, 2))
        self.spread = nn.Parameter(self.START_SD * torch.eye(2).repeat(len(draw), n_units, 1, 1))
        self.bias = nn.Parameter(torch.zeros(len(draw), n_units, 1))

    def forward(self, maps: Float[Tensor, "batch channels row column"], members: slice, noise: Generators | None) -> Tensor:
        """Maps to z-scored answers (member unit batch)."""
        if noise is not None:
            with torch.no_grad():
                self.place.clamp_(-1, 1)  # beyond the border there is no gradient that leads back
        mixing, place = self.mixing[members], self.place[members]
        places = place[:, None].expand(-1, len(maps), -1, -1)
        with torch.autocast(maps.device.type, enabled=False):  # half precision would round places to a tenth of a map's step
            if noise is not None:
                away = torch.stack([torch.randn(places.shape[1:], generator=own, device=own.device) for own in noise])
                places = places + torch.einsum("mbux,muyx->mbuy", away, self.spread[members])
            by_member = maps.float().unflatten(1, (len(mixing), -1)).transpose(0, 1).flatten(0, 1).contiguous()
            grid = places.clamp(-1, 1).flatten(0, 1)[:, :, None]
            looked_at = functional.grid_sample(by_member, grid, align_corners=True)[..., 0].unflatten(0, (len(mixing), -1))
            return torch.einsum("mbcu,muc->mub", looked_at, mixing) + self.bias[members]


READOUTS: dict[str, type[FactorisedReadout] | type[GaussianReadout]] = {"factorised": FactorisedReadout, "gaussian": GaussianReadout}
"""By the names of `config.Teacher.readout`."""


def normal(draw: Generators, *shape: int) -> Tensor:
    """Standard normal numbers (member *shape), each member's from its own generator.

    Examples
    --------
    >>> two = normal([torch.Generator().manual_seed(seed) for seed in (1, 2)], 3)
    >>> bool((two[1] == normal([torch.Generator().manual_seed(2)], 3)[0]).all())
    True
    """
    return torch.stack([torch.randn(shape, generator=own) for own in draw])
