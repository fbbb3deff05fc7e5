"""The fleet's topology: which nodes form an UltraServer, and which network nodes they are under. All pure.

- ``places``: the places of a pool's nodes, from the pool's shape, their labels, and where they were before.
- ``domains``, ``seat``, ``ultraservers``: what everybody else reads from NeuronNodes.

The operator writes places into NeuronNode.spec, and nothing else is remembered anywhere.
"""

from neuron_operator.topology.layers import Shape
from neuron_operator.topology.members import UltraServer, domains, is_ready, seat, ultraservers
from neuron_operator.topology.pool import Place, places

__all__ = ["Place", "Shape", "UltraServer", "domains", "is_ready", "places", "seat", "ultraservers"]
