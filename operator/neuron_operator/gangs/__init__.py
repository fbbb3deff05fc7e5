"""Gangs for everyone: pods with a label run close together, all of them or none.

A pod with the gate `neuron-sim.dev/gang` is invisible to kube-scheduler. This package finds nodes for the whole
gang at once (`neuron_operator.placement`), reserves them, and lets the pods go with their node written on them.
What it is doing with a gang is in the gang's NeuronGang, in taints of nodes and in the pods, and nowhere else: it
can be killed between any two writes.

`pods`, `demand`, `eligibility`, `records`, `capacity`, `barrier`, `deciding`, `opening` and `telling` are pure; `state`
is what watches told; `writing` carries out; `controller` is the loop.
"""
