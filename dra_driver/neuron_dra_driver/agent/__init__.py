"""The agent's life: what it starts, when it is ready, what it tells of itself."""
