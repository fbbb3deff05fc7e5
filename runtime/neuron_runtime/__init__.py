"""The tools that run inside the user's container, as AWS's own tools print it.

They read one file per claim request (``/run/neuron-sim/<claim uid>/<request>/view.json``, written by the node
agent), lock the files of the cores beside it, and know nothing of Kubernetes. A tool lives for some
milliseconds, and a person or a probe waits for it, so start time rules the shape of this package: only the
standard library, and of that only what the interpreter has loaded anyway. Bare start 8 ms, the whole of
``neuron-ls`` 3 ms of imports; ``json`` would add 7, ``argparse`` 11, and ``typing``, ``dataclasses`` or
``pathlib`` about as much each. Hence TYPE_CHECKING blocks, plain classes with slots, and ``os`` instead of
``pathlib``.
"""
