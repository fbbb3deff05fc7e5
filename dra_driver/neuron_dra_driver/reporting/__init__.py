"""What the API server is told of prepared claims: their devices, their health, Events on pods."""
