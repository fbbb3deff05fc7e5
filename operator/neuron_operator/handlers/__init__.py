"""kopf's side of the operator: an event in, a call to the fleet state out."""
