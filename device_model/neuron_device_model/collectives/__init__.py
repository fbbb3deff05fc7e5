"""What a collective operation costs on the chips that a placement really gave.

One function answers, `model.estimate`: from a fabric, a group of cores, an operation, a size and a data type it says
how long the operation takes, which algorithm the runtime uses, what each of its stages waits for, and which links
carry how much. Everything is computed from wiring and published figures and from the few parameters in
parameters.toml, which hack/fit-collectives fits to published measurements. docs/collectives.md explains it.

Pure, standard library only: the tools in the pod use it, and so do placement and the command line.
"""
