"""The parts of ``neuron-sim-train`` and ``neuron-sim-serve``, each loaded when it is needed."""
