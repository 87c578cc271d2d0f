"""The mixture's weights follow both members' faded losses, the same however outcomes are cut into calls."""

from __future__ import annotations

import math

import numpy as np
import pytest

from penstock.services.trainer.mixture import Mixture
from penstock.statistics.loss import log_loss


def drawn(seed: int, n: int = 500) -> tuple[list[float], list[float], list[bool]]:
    rng = np.random.default_rng(seed)
    batch, online = rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    batch[rng.random(n) < 0.1] = math.nan
    online[rng.random(n) < 0.1] = math.nan
    return batch.tolist(), online.tolist(), (rng.random(n) < 0.4).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_faded_loss_is_the_weighted_mean_of_all_losses(seed: int) -> None:
    batch, online, labels = drawn(seed)
    mixture = Mixture(sharpness=5.0, half_life=50)
    mixture.learn(batch, online, labels)
    both = [(p, q, y) for p, q, y in zip(batch, online, labels, strict=True) if p == p and q == q]
    age = np.arange(len(both))[::-1]
    fading = 0.5 ** (age / 50)
    for member, column in (("batch", 0), ("online", 1)):
        losses = np.array([log_loss(row[column], row[2]) for row in both])
        assert getattr(mixture, member) / mixture.weight == pytest.approx(np.average(losses, weights=fading), rel=1e-9)
    gap = (mixture.batch - mixture.online) / mixture.weight
    assert mixture.weights["batch"] == pytest.approx(math.exp(-5 * gap) / (1 + math.exp(-5 * gap)))
    assert sum(mixture.weights.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("cuts", [[1, 2, 3], [250], [100, 400]])
def test_outcomes_in_several_calls_give_the_same_bits_as_in_one(cuts: list[int]) -> None:
    batch, online, labels = drawn(9)
    whole, cut = Mixture(50.0, 100), Mixture(50.0, 100)
    whole.learn(batch, online, labels)
    for low, high in zip([0, *cuts], [*cuts, 500], strict=True):
        cut.learn(batch[low:high], online[low:high], labels[low:high])
    assert cut == whole


def test_the_better_member_of_late_gets_the_weight() -> None:
    mixture = Mixture(sharpness=50.0, half_life=100)
    mixture.learn([0.9] * 1000, [0.4] * 1000, [True] * 1000)
    assert mixture.weights["batch"] > 0.999
    mixture.learn([0.4] * 1000, [0.9] * 1000, [True] * 1000)
    assert mixture.weights["online"] > 0.999


def test_sharpness_zero_is_the_plain_mean_and_a_huge_one_the_hard_choice() -> None:
    for sharpness, share in ((0.0, 0.5), (1e9, 1.0)):
        mixture = Mixture(sharpness, 100)
        mixture.learn([0.9], [0.8], [True])
        assert mixture.weights["batch"] == share
