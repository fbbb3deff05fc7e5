"""What all tests share."""

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("neuron-sim", deadline=None)
settings.load_profile("neuron-sim")

SUMMARY_WIDTH = 300
"""Characters of a line in the summary at the end, where it goes to a log: pytest's 80 cut off what was asserted."""


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(config: pytest.Config) -> None:
    """Let a log's last lines say which test failed, and why. They are written after this."""
    writer = config.get_terminal_writer()
    if not writer.hasmarkup:
        writer.fullwidth = max(writer.fullwidth, SUMMARY_WIDTH)
