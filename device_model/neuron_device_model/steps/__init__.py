"""What a step of a training or serving workload takes: the chips' published figures, and the model of collectives."""
