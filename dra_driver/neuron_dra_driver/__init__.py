"""The node agent: a DRA driver that serves simulated Neuron devices to the kubelet of one node."""
