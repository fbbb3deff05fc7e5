"""What runs once per cluster: it turns NeuronNodePools into one NeuronNode per node, and finds places for work.

The flow is one-way and level-triggered::

    watches (kopf) ──▶ fleet state in memory ──▶ plan(snapshot), pure ──▶ apply ──▶ API server
         ▲                                                                            │
         └────────────────────────────── events, and the answers to our own writes ◀──┘

- ``resources``, ``crds``: the custom resources as pydantic models, and the CRDs generated from them.
- ``topology``: which nodes form an UltraServer, and which network nodes they are under.
- ``nodes``, ``selectors``, ``foreign``, ``labels``, ``roads``, ``expansion``, ``faults``, ``conditions``,
  ``planning``, ``pending``: decisions, all pure functions of plain data.
- ``fleet``: what is known of the cluster. ``handlers``: the watches that feed it.
- ``kube``, ``applying``, ``reconciler``, ``notices``, ``leader``: the adapters and the loops.
- ``placement``: where pods that belong together go, pure. ``gangs`` does it for pods with a label, ``ultraservers`` for
  AWS's NeuronUltraServerWorkloads; each has a plan and a loop like the one above.
- ``explaining``: why a pod waits, in sentences; for Events, and for ``neuron-sim explain``. ``node_affinity``:
  Kubernetes' rules about pods and nodes, for whoever judges by them.
- ``extender``: AWS's scheduler extension, a process of its own.
- ``hooks``: what Helm runs before and after (CRDs, uninstall).
"""
