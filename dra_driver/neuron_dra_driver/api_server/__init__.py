"""Speaking to the API server, in as little memory as that takes."""
