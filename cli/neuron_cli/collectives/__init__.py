"""``neuron-sim collectives``: what the cost model says, as rows, plots in the terminal and SVG."""
