"""The element types that collectives move and add, by the names that nccom-test takes.

(AWS docs: tools/neuron-sys-tools/nccom-test.rst)
"""

from dataclasses import dataclass

from neuron_device_model.catalog.nearest import not_known
from neuron_device_model.collectives.errors import UnsupportedCollective


@dataclass(frozen=True, slots=True)
class DataType:
    """One element type."""

    name: str
    bytes: int
    aliases: tuple[str, ...] = ()


DATA_TYPES = (
    DataType("uint8", 1),
    DataType("int8", 1),
    DataType("fp8", 1, ("fp8e4",)),
    DataType("uint16", 2),
    DataType("int16", 2),
    DataType("fp16", 2),
    DataType("bf16", 2),
    DataType("uint32", 4),
    DataType("int32", 4),
    DataType("fp32", 4),
)

_BY_NAME = {name: kind for kind in DATA_TYPES for name in (kind.name, *kind.aliases)}


def data_type(name: str) -> DataType:
    """The type of this name."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnsupportedCollective(not_known("data type", name, _BY_NAME)) from None
