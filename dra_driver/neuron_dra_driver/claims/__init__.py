"""The road of Dynamic Resource Allocation: ResourceClaims from the API server to prepared claims."""
