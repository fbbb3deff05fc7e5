"""The clock that counts follow: wall clocks are set, and counters must not go back."""

from hypothesis import given
from hypothesis import strategies as st
from neuron_dra_driver.activity import profiles
from neuron_dra_driver.clock import SteadyClock

BORN = 1_767_225_600.0


class Clocks:
    """A machine's clocks; somebody sets one of them."""

    def __init__(self) -> None:
        self.wall, self.monotonic = BORN + 1000.0, 5.0
        self.steady = SteadyClock(lambda: self.wall, lambda: self.monotonic)

    def go(self, seconds: float, *, jump: float = 0) -> float:
        self.wall += seconds + jump
        self.monotonic += seconds
        return self.steady()


def test_a_clock_set_forward_is_followed_and_one_set_back_is_not() -> None:
    clocks = Clocks()
    assert clocks.go(10) == BORN + 1010
    assert clocks.go(10, jump=3600) == BORN + 4620
    assert clocks.go(10, jump=-3600) == BORN + 4630, "it goes on at its pace"
    assert clocks.go(10) == BORN + 4640


@given(
    st.lists(st.tuples(st.floats(0, 600), st.floats(-1e7, 1e7)), max_size=20), st.sampled_from(list(profiles.PROFILES))
)
def test_what_a_profile_counts_never_goes_back(jumps: list[tuple[float, float]], profile: str) -> None:
    clocks = Clocks()
    before, then = 0, clocks.steady()
    for seconds, jump in jumps:
        now = clocks.go(seconds, jump=jump)
        assert now - then >= seconds * 0.999999 - 1e-6, "nor does it stand still"
        said = profiles.report(profile, seed="s", cores=[0], age=now - BORN, core_memory=1 << 30, core_flops=1e12)
        assert said["executions"]["completed"] >= before
        before, then = said["executions"]["completed"], now
