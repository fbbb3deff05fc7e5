"""AWS's UltraServer operator, served: whole nodes of UltraServers for a workload, before any of its pods is scheduled.

A NeuronUltraServerWorkload asks for sets of one, two or four nodes. Which nodes it has is decided here and written in
one place, the workload's status; everything else follows from that and can be made again at any time: the workload
id on the nodes, the claim template, the NeuronUltraServers' tables, the pods that have to go.
"""
