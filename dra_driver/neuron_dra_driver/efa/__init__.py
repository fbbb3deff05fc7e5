"""EFA cards beside the chips: a second DRA driver in the agent's process, with a name and a registration of its own."""
