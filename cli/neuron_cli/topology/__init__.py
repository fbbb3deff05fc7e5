"""``neuron-sim topology``: the fleet as it stands, from network nodes to chips, with who uses what and what is broken.

``view`` is the picture as plain values and its JSON (pure), ``drawing`` prints it on a terminal, ``svg`` as an image.
A fleet of thousands is summed up, and drawn in full only where it is asked for.
"""
