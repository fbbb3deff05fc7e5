"""What faults do to the node's hardware: ECC counters that last, and what containers are told."""
