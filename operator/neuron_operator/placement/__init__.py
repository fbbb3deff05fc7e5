"""Placement: which nodes a gang of pods gets, so that it is close together and large domains stay whole.

A pure function: fleet, free chips and gangs in; nodes, or reasons that a person can act on, out. No Kubernetes, no
clock, no chance, no state between calls. Whoever asks takes care that the answer is still true when it is carried out.

The question has few shapes: UltraServers of four nodes in the same few states, and gangs that ask the same. So the
exact best way into one UltraServer is looked up (`fitting`), every domain is asked (`board`), and answers are kept
until a node changes (`index`). A general solver would be slower by orders of magnitude and could not say why not.

Modules, from the bottom: ``model`` (the values), ``ways``, ``rows``, ``fitting``, ``index``, ``reasons``, ``board``.
"""

from neuron_operator.placement.board import Board, consider, place, place_all
from neuron_operator.placement.model import LEVELS, Considered, Gang, Level, NodeState, Placement, Refusal

__all__ = [
    "LEVELS",
    "Board",
    "Considered",
    "Gang",
    "Level",
    "NodeState",
    "Placement",
    "Refusal",
    "consider",
    "place",
    "place_all",
]
