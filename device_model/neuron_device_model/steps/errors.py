"""What goes wrong with a step."""


class WrongStep(ValueError):
    """A workload that cannot be run like this; the message says what to change."""
