"""The kubelet's gRPC messages: our own `.proto` files and what `hack/generate` makes of them."""
