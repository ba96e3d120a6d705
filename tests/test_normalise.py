from __future__ import annotations

import math

import pytest
import torch

from physml.fields import Axis, Batch, Grid, GridField, Setting
from physml.normalise import Increments, Normaliser, Standardise


def ready(kind: type[Normaliser]) -> Normaliser:
    normaliser = kind()
    normaliser.allocate(2, 3)
    normaliser.learn(torch.tensor([1.0, -50.0]), torch.tensor([2.0, 1e3]), torch.tensor([0.5, 1e3]), stride=2)
    return normaliser


@pytest.mark.parametrize("kind", [Standardise, Increments])
def test_decode_undoes_encode(kind: type[Normaliser]) -> None:
    normaliser = ready(kind)
    values = 100 * torch.randn(4, 5, 2)
    # two roundings of fp32 numbers of size 1e3
    torch.testing.assert_close(normaliser.decode(normaliser.encode(values)), values, rtol=1e-6, atol=1e-3)


def test_zero_increment_is_persistence() -> None:
    normaliser = ready(Increments)
    window = torch.randn(2, 4, 8, 2)
    frames = normaliser.assemble(window, torch.zeros(2, 3, 8, 2))
    assert torch.equal(frames, window[:, -1:].expand_as(frames))


def test_increment_scales_grow_with_the_lead_and_saturate() -> None:
    normaliser = ready(Increments)
    # stride 2: leads of 2, 4, 6 stored frames at 0.25 a frame for the first field; the second saturates at once
    expected = torch.tensor([[0.5, math.sqrt(2)], [1.0, math.sqrt(2)], [math.sqrt(2), math.sqrt(2)]])
    torch.testing.assert_close(normaliser.scale, expected)


def conditioned() -> Normaliser:
    normaliser = Standardise()
    normaliser.allocate(1, 1, frames=0, static=2, condition=("viscosity", "speed"))
    moments = [
        Setting(torch.tensor([0.5, 3.0]), torch.tensor([1.0, -2.0])),
        Setting(torch.tensor([0.25, 0.0]), torch.tensor([0.0, 4.0])),
    ]
    normaliser.learn_setting(*moments)
    return normaliser


def test_numbers_and_static_fields_are_standardised_and_constants_divided_by_one() -> None:
    setting = Setting(torch.tensor([[1.0, 5.0]]), torch.tensor([3.0, 6.0]).expand(1, 4, 2))
    made = conditioned().encode_setting(setting)
    assert made.numbers is not None and made.numbers.tolist() == [[2.0, 2.0]]
    assert made.fields is not None and torch.equal(made.fields, torch.full((1, 4, 2), 2.0))
    assert conditioned().encode_setting(Setting()) == Setting()


def test_a_normalised_batch_has_what_the_operator_reads_in_its_order() -> None:
    grid = Grid((Axis.periodic_uniform("x", 4, 1.0),))
    state, still = torch.randn(1, 0, 4, 1), torch.tensor([3.0, 6.0]).expand(1, 1, 4, 2)
    inputs = {"state": GridField(state, grid, ("u",)), "static": GridField(still, grid, ("a", "b"))}
    numbers = {"speed": torch.tensor([5.0]), "density": torch.tensor([9.0]), "viscosity": torch.tensor([1.0])}
    batch = conditioned()(Batch(1, inputs, {}, numbers))
    assert list(batch.condition) == ["viscosity", "speed"]
    setting = batch.setting
    assert setting.numbers.tolist() == [[2.0, 2.0]] and torch.equal(setting.fields, torch.full((1, 4, 2), 2.0))
    unaware = Standardise()
    unaware.allocate(1, 1)
    left = unaware(Batch(1, inputs, {}, numbers))
    assert left.setting == Setting() and list(left.inputs) == ["state"]


def test_a_checkpoint_holds_moments_of_a_setting_only_where_one_is_read() -> None:
    assert set(conditioned().state_dict()) == {
        "mean",
        "std",
        "static_mean",
        "static_std",
        "number_mean",
        "number_std",
    }
    assert set(ready(Standardise).state_dict()) == {"mean", "std"}


def test_increments_need_a_known_frame() -> None:
    with pytest.raises(ValueError, match=r"frames=0\).*use physml\.normalise\.Standardise"):
        Increments().allocate(1, 1, frames=0, static=1)
