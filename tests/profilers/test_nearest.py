"""What was seen of the cores decides how long to wait for them."""

from profilers.nearest import Nearest


def test_where_the_cores_are_mostly_apart_waiting_is_worth_little() -> None:
    nearest = Nearest()
    nearest.saw([2e-7, 2.1e-7, None, 2.2e-7])
    assert (nearest.seconds, nearest.patience, nearest.is_rule) == (2e-7, 1.0, True)
    for _ in range(20):
        nearest.saw([5e-7, 4e-7])
    assert (nearest.seconds, nearest.patience, nearest.is_rule) == (2e-7, 0.1, False)
    for _ in range(5):
        nearest.saw([2e-7])
    assert nearest.is_rule
    assert nearest.patience == 1.0
    nearest.saw([None])
    assert nearest.is_rule
