"""What runs once per cluster: it turns the user's NeuronNodePools into one NeuronNode per node.

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
- ``hooks``: what Helm runs before and after (CRDs, uninstall).
"""
