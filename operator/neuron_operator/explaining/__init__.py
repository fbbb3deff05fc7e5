"""Why a pod, a claim or a gang waits: the same sentences for the command line and for Events on pods.

The scheduler counts nodes ("0/3 nodes are available: 3 cannot allocate all claims"); a person wants to know what
each of them lacks and what to change. So its search is repeated here, on plain objects and with names kept:
``demand`` reads what a pod asks for, ``supply`` what nodes offer and who holds it, ``fitting`` tries the one on the
other, ``node_rules`` has the rules that are no matter of devices, and ``explanation`` puts what was found into
sentences. Pure, and never more sure than the facts: a selector that ``cel_reading`` cannot read is shown, and not
guessed.

It repeats what concerns Neuron devices, and no more: room for processors and memory, volumes, spreading and
priorities are left to the scheduler's own words.
"""
