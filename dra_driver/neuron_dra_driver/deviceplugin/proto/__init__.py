"""The kubelet's gRPC messages: our own `.proto` files and what `generate.py` makes of them."""
