"""NeuronFaults: when each is active (``schedule``), what of it goes to which node (``judging``), and what the node
problem detector and EKS's node monitoring agent say of the node then (``node_health``).
"""

from neuron_operator.faults.judging import Verdicts, judge

__all__ = ["Verdicts", "judge"]
