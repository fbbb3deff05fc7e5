"""Activity: what runs on the simulated cores, as their processes or their pods' annotations say."""
