"""What pods say to be a gang, and what they and their nodes carry while they are one."""

from typing import Final

from neuron_operator import names

GATE: Final = f"{names.GROUP}/gang"
LABEL_GANG: Final = f"{names.GROUP}/gang"
LABEL_SIZE: Final = f"{names.GROUP}/gang-size"
TOPOLOGY: Final = f"{names.GROUP}/topology"
"""A label or an annotation."""
ANNOTATION_TIMEOUT: Final = f"{names.GROUP}/gang-timeout"

TAINT: Final = names.TAINT_RESERVED
ANNOTATION_RESERVATION: Final = f"{names.GROUP}/reservation"
"""On pods that were let go: the reservation by which."""
ANNOTATION_PLACE: Final = f"{names.GROUP}/place"
"""On pods that were let go: to which node."""

HOSTNAME: Final = "kubernetes.io/hostname"
LABELS_INDEX: Final = (
    "batch.kubernetes.io/job-completion-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "apps.kubernetes.io/pod-index",
)
"""A pod's number in its workload, or in that part of it which is named below."""
LABEL_JOB_INDEX: Final = "jobset.sigs.k8s.io/job-index"
LABEL_JOBS: Final = "jobset.sigs.k8s.io/replicatedjob-replicas"
LABEL_GROUP_INDEX: Final = "leaderworkerset.sigs.k8s.io/group-index"
ANNOTATION_GROUP_SIZE: Final = "leaderworkerset.sigs.k8s.io/size"
"""A JobSet numbers the pods of each Job, a LeaderWorkerSet those of each group."""
