"""ResourceQuotas that keep the claims of a pod from being made: the pod is there then, and waits in silence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuron_operator.explaining.demand import Demand
from neuron_operator.explaining.supply import quantity

Json = Mapping[str, Any]

_CLAIMS = "count/resourceclaims.resource.k8s.io"


def exceeded(demand: Demand, quotas: Sequence[Json]) -> Iterator[str]:
    """Quotas that the claims which are still to be made would exceed, a sentence each."""
    if not demand.awaited:
        return
    wanted = Counter({_CLAIMS: len(demand.awaited)})
    for claim in demand.claims:
        for request in claim.requests:
            for ask in request.asks:
                wanted[f"{ask.device_class}.deviceclass.resource.k8s.io/devices"] += ask.count or 1
    for quota in quotas:
        status = quota.get("status") or {}
        for resource, amount in wanted.items():
            if resource not in (status.get("hard") or {}):
                continue
            hard = quantity(status["hard"][resource])
            used = quantity((status.get("used") or {}).get(resource, 0))
            if used + amount > hard:
                yield (
                    f"ResourceQuota {quota['metadata']['name']} allows {hard} of {resource}, {used} are used and the"
                    f" pod's claims need {amount}: raise the quota, or end other pods of the namespace"
                )
