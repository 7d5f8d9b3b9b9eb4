import numpy as np
import pytest
import torch

from nwb_compact.readouts import READOUTS, FactorisedReadout, GaussianReadout, normal

MAPS = torch.randn(6, 2 * 4, 5, 7, generator=torch.Generator().manual_seed(0))  # two members of four channels


def draw(n=2):
    return [torch.Generator().manual_seed(member) for member in range(n)]


def test_a_factorised_unit_is_a_weight_a_channel_times_a_weight_a_place():
    readout = FactorisedReadout(3, 4, 5, 7, draw())
    found = readout(MAPS, slice(0, 2), None).detach()
    for member in range(2):
        mixing, spatial = readout.mixing[member].detach(), readout.spatial[member].detach().reshape(3, 5, 7)
        by_hand = torch.einsum("bchw,uc,uhw->ub", MAPS[:, 4 * member : 4 * member + 4], mixing, spatial) / 35
        torch.testing.assert_close(found[member], by_hand, rtol=1e-4, atol=1e-5)


def test_a_gaussian_unit_sees_the_map_at_its_place_and_between_places_in_proportion():
    readout = GaussianReadout(2, 4, 5, 7, draw())
    with torch.no_grad():
        readout.place[:] = torch.tensor([[-1.0, 1.0], [0.5 / 3, 0.0]])  # the last row's first column; half-way between two columns
    found = readout(MAPS, slice(0, 2), None).detach()
    corner, between = MAPS[:, :, 4, 0], (MAPS[:, :, 2, 3] + MAPS[:, :, 2, 4]) / 2
    for member in range(2):
        channels = slice(4 * member, 4 * member + 4)
        mixing = readout.mixing[member].detach()
        by_hand = torch.stack([corner[:, channels] @ mixing[0], between[:, channels] @ mixing[1]])
        torch.testing.assert_close(found[member], by_hand, rtol=1e-4, atol=1e-5)


def test_a_gaussian_unit_looks_elsewhere_at_each_image_while_it_learns():
    readout = GaussianReadout(1, 4, 5, 7, draw())
    same = MAPS[:1].repeat(2000, 1, 1, 1)
    still, drawn = readout(same, slice(0, 2), None).detach(), readout(same, slice(0, 2), draw()).detach()
    assert (still == still[:, :, :1]).all()
    assert (drawn.std(dim=2) > 0.01).all()
    assert (drawn[0] != drawn[1]).any()
    readout.spread.data.zero_()
    torch.testing.assert_close(readout(same, slice(0, 2), draw()), readout(same, slice(0, 2), None))


def test_the_gradient_reaches_place_and_spread():
    readout = GaussianReadout(1, 4, 5, 7, draw())
    readout(MAPS, slice(0, 2), draw()).square().mean().backward()
    assert (readout.place.grad != 0).all()
    assert (readout.spread.grad != 0).all()


@pytest.mark.parametrize("name", READOUTS)
def test_some_members_answer_as_they_do_among_all(name):
    readout = READOUTS[name](3, 4, 5, 7, draw())
    whole = readout(MAPS, slice(0, 2), None)
    torch.testing.assert_close(readout(MAPS[:, 4:], slice(1, 2), None), whole[1:])


def test_numbers_of_a_member_are_its_own():
    np.testing.assert_array_equal(normal(draw(3), 4)[2], normal(draw(3)[2:], 4)[0])
