"""The agent of virtual nodes: publishes the devices of thousands of nodes that have no machine, in one process."""
