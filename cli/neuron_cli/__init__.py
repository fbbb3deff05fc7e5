"""The `neuron-sim` command for people: a thin reader of the catalogue and of a cluster.

Nothing imports this package. What it shows is decided by pure functions over plain values (`catalogue`,
`fleet`, `faults`, `doctor`); `cluster` is the only module that talks to an API server, `facts` the only one that knows
what to ask it.
"""
