"""What was given to a claim, and which hardware that is. Decisions only: nothing here touches the disk."""
