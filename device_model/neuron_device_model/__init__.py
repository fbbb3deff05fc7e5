"""What Neuron hardware is: chips, instance types, links, and what a node made of them offers.

Everything here is pure: no I/O but the data files beside the code, no Kubernetes, no gRPC, and nothing
but the standard library. The node agent imports this package and its memory is a budget; the tools in the
pod import parts of it and have no third-party package at all.
"""
