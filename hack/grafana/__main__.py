"""Write the dashboards as JSON into the folder that is given: `python hack/grafana FOLDER`."""

import json
import sys
from pathlib import Path

from faults import FAULT_DRILL
from fleet import FLEET
from node import NODE
from ultraserver import ULTRASERVER
from workload import WORKLOAD

DASHBOARDS = (FLEET, ULTRASERVER, NODE, WORKLOAD, FAULT_DRILL)

folder = Path(sys.argv[1])
for old in folder.glob("*.json"):
    old.unlink()
for dashboard in DASHBOARDS:
    name = dashboard.uid.removeprefix("neuron-sim-")
    (folder / f"{name}.json").write_text(json.dumps(dashboard.model(), indent=2) + "\n")
