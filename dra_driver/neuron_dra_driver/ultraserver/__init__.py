"""The node's part in its UltraServer as a device of several nodes: a DRA driver with a registration of its own."""
