"""Layouts and models as people write them: ``tp=8,dp=4`` and ``layers=32,hidden=4096,sequence=4096,batch=64``. Pure."""

from collections.abc import Collection

from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.transformer import Transformer

_MOST_DIGITS = 9


def parse_layout(text: str) -> Layout:
    """A layout; dimensions that are left out are 1. Raises WrongStep."""
    given = _numbers(text, ("tp", "dp", "pp"), example="tp=8,dp=4 or tp=4,dp=4,pp=4")
    return Layout(given.get("tp", 1), given.get("dp", 1), given.get("pp", 1))


def shown_layout(layout: Layout) -> str:
    """The same, backwards."""
    return f"tp={layout.tensor},dp={layout.data},pp={layout.pipeline}"


def parse_transformer(text: str) -> Transformer:
    """A model. Raises WrongStep."""
    parts = [part.strip() for part in text.split(",")]
    types = [part.removeprefix("dtype=") for part in parts if part.startswith("dtype=")]
    rest = ",".join(part for part in parts if not part.startswith("dtype="))
    example = "layers=32,hidden=4096,sequence=4096,batch=64,dtype=bf16"
    names = ("layers", "hidden", "sequence", "batch")
    given = _numbers(rest, names, example=example)
    if missing := [name for name in names if name not in given]:
        raise WrongStep(f"{text!r} lacks {', '.join(missing)}: write it like {example}")
    return Transformer(**given, dtype=types[-1] if types else "bf16")


def _numbers(text: str, names: Collection[str], *, example: str) -> dict[str, int]:
    given: dict[str, int] = {}
    for part in text.split(","):
        name, _, digits = part.strip().partition("=")
        known = name in names and name not in given
        if not known or not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS or not int(digits):
            raise WrongStep(f"{part.strip()!r} of {text!r} is not understood: write it like {example}")
        given[name] = int(digits)
    return given
