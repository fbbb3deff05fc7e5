"""What the platform, or this model, does not do."""


class UnsupportedCollective(ValueError):
    """No Neuron platform runs this operation on this group; the message says what to change."""
