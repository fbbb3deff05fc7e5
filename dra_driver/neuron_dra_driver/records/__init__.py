"""What was given away, as it is remembered: the journal, and which cores are held."""
