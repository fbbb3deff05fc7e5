"""The algorithms, each as the stages it consists of on the chips of one group."""
