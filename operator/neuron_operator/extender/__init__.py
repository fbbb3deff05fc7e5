"""AWS's Neuron scheduler extension, for nodes whose devices a device plugin serves.

kube-scheduler counts devices and knows nothing of rings and tori, nor that a chip and its cores are one thing. So
the second scheduler `my-scheduler` asks this HTTP extender twice for each pod with Neuron resources: `filter` drops
the nodes where no allowed set of chips or cores is free, and `bind` chooses the set, writes it on the pod and binds
it. The node's device plugin reads the annotation and hands out that set.

What AWS's own does wrong (its state goes stale, it drops other controllers' annotations, chips and cores are
counted twice) is avoided by construction:

- Who has what is derived from the pods that are bound (``occupancy``), every time. Nothing is written down anywhere
  else, so a restart, an uninstall or a lost event leaves nothing that could be wrong.
- A binding carries the annotations. The API server merges them into the pod's own and sets the node in one
  transaction, which only an unbound, undeleted pod with the right uid passes. There is nothing half done to repair,
  and no right to change pods is needed.
- Chips and cores are taken out of one picture of the node.

Layers: ``demand`` and ``occupancy`` decide (pure), ``state`` is what is known of the cluster, ``watching`` feeds it,
``binding`` and ``usage_maps`` write, ``server`` speaks with kube-scheduler, ``running`` is the process.
"""
