"""The commands.

Each one imports what it needs when it runs: `neuron-sim types` must not wait for a Kubernetes client, and
`neuron-sim agent` becomes the agent's process, which carries nothing of the command line in its memory.

Whatever goes wrong that a person can change is one line on stderr and exit status 1; a traceback is a bug.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neuron_cli.cluster import Cluster
    from neuron_cli.collectives.layout import Answer

app = typer.Typer(
    name="neuron-sim",
    help="A simulated AWS Trainium/Inferentia fleet on Kubernetes: look at it, find out what is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

NOT_INSTALLED = "not installed in this cluster: helm install neuron-sim charts/neuron-sim"


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


class Picture(StrEnum):
    """How to show the fleet."""

    TABLE = "table"
    JSON = "json"
    SVG = "svg"


class Format(StrEnum):
    """How to print an object."""

    YAML = "yaml"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people or for programs.")]
KubeconfigOption = Annotated[
    Path | None, typer.Option("--kubeconfig", help="Instead of $KUBECONFIG or ~/.kube/config.")
]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Instead of the context's namespace.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="The kubeconfig's context to use.")]


@app.command()
def types(
    name: Annotated[str | None, typer.Argument(help="Show everything about this instance type.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the instance types that a pool may name."""
    from neuron_device_model.catalog import UnknownInstanceType, instance_type, instance_types

    from neuron_cli import catalogue, render

    if name is None:
        rows = [catalogue.summary(kind) for kind in instance_types()]
        render.table(rows, output=output)
        return
    try:
        kind = instance_type(name)
    except UnknownInstanceType as unknown:
        raise failure(str(unknown)) from None
    render.record(catalogue.details(kind), output=output)


@app.command()
def nodes(
    output: OutputOption = Output.TABLE, kubeconfig: KubeconfigOption = None, context: ContextOption = None
) -> None:
    """Show the simulated nodes of the cluster."""
    from neuron_cli import fleet, render
    from neuron_cli.facts import OUR_API

    with connected(kubeconfig, context, doing="reading the nodes") as cluster, installed():
        found = cluster.items(f"{OUR_API}/neuronnodes")
    if not found and output is Output.TABLE:
        print("No simulated nodes; `kubectl get neuronnodepools` and `neuron-sim doctor` say why.")
        return
    render.table([fleet.row(node) for node in found], output=output)


@app.command()
def packing(
    mix: Annotated[
        str | None,
        typer.Option(
            help="Instead of a cluster: what becomes of these claims on an empty node, such as 8x1,-3,2x4chip (eight"
            " claims of one core; the third is released; two claims of four chips)."
        ),
    ] = None,
    instance_type: Annotated[str, typer.Option(help="With --mix: the node.")] = "trn2.48xlarge",
    lnc: Annotated[int | None, typer.Option(help="With --mix: its logical NeuronCore configuration.")] = None,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show how many chips are broken into by claims of cores, beside the fewest that could hold them."""
    from neuron_cli import render

    if mix is not None:
        from neuron_device_model import catalog

        from neuron_cli import packing_mix

        try:
            kind = catalog.instance_type(instance_type)
            done = packing_mix.packed(mix, kind, logical_neuron_core=lnc)
        except (catalog.UnknownInstanceType, ValueError) as wrong:
            raise failure(str(wrong)) from None
        if output is Output.JSON:
            render.record(packing_mix.document(done), output=output)
        else:
            print(done)
        return
    from neuron_cli import packing as clusters

    with connected(kubeconfig, context, doing="reading nodes and claims") as cluster, installed():
        rows = clusters.rows(clusters.gather(cluster))
    if output is Output.JSON:
        render.record({"nodes": rows, "total": clusters.total(rows)}, output=output)
    elif rows:
        render.table([*rows, clusters.total(rows)], output=output)
    else:
        print("No simulated nodes; `kubectl get neuronnodepools` and `neuron-sim doctor` say why.")


@app.command()
def collectives(
    instance_type: Annotated[str, typer.Option(help="Where the ranks are.")],
    ranks: Annotated[int | None, typer.Option(help="Cores that take part, on all nodes together.")] = None,
    operation: Annotated[str, typer.Option("--op", help="As nccom-test calls it.")] = "all_reduce",
    dtype: Annotated[str, typer.Option(help="Type of the elements.")] = "bf16",
    size: Annotated[
        list[str] | None, typer.Option(help="Bytes, as 64KiB; several times or with commas. Left out: 1KiB to 1GiB.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Instances.")] = 1,
    lnc: Annotated[int | None, typer.Option(help="Logical NeuronCore configuration.")] = None,
    ultraserver: Annotated[bool, typer.Option("--ultraserver", help="The instances are one UltraServer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: with stages and links.")] = False,
    svg: Annotated[
        Path | None,
        typer.Option(
            help="Write an image to this file: time and bandwidth over size; of one size, what each link carries."
        ),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Instead of --ranks: parallel groups, such as tp=8,dp=4 or tp=4,dp=4,pp=4.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="With --layout: a step of training this, such as layers=32,hidden=4096,sequence=4096,batch=64."
        ),
    ] = None,
) -> None:
    """Say what a collective operation takes: time, bandwidth, algorithm and stages, by the cost model."""
    import json

    from neuron_cli import render
    from neuron_cli.collectives import board, links, plot, sweep
    from neuron_cli.collectives import layout as layouts

    if (ranks is None) == (layout is None):
        raise failure("say which cores: --ranks N, or --layout tp=N,dp=N,pp=N")
    if (model and not layout) or (svg and layout):
        raise failure("--model goes with --layout, and --svg with --ranks")
    try:
        sizes = [sweep.parse_size(part) for words in size or () for part in words.split(",")]
        if layout is not None:
            answer = layouts.answer(
                instance_type,
                layout,
                nodes=nodes,
                lnc=lnc,
                ultraserver=ultraserver,
                what=operation,
                dtype=dtype,
                sizes=sizes or [layouts.DEFAULT_SIZE],
                model_text=model,
            )
            if as_json:
                print(json.dumps(layouts.document(answer), indent=2))
            else:
                _show_layout(answer)
            return
        assert ranks is not None
        asked = sweep.question(
            instance_type, ranks=ranks, what=operation, dtype=dtype, nodes=nodes, lnc=lnc, ultraserver=ultraserver
        )
        found = asked.answers(sizes or sweep.DEFAULT_SIZES)
    except sweep.WrongSweep as wrong:
        raise failure(str(wrong)) from None
    switches = asked.switches(found)
    if svg is not None:
        title = f"{found[0].operation.name}, {dtype}, {ranks} ranks on {nodes} × {instance_type}"
        drawn = (
            plot.svg(found, switches=switches, title=title)
            if len(found) > 1
            else links.svg(asked.fabric, asked.cores, found, title=f"{title}, {sweep.shown_size(found[0].size)}")
        )
        try:
            svg.write_text(drawn)
        except OSError as error:
            raise failure(f"the plot cannot be written: {error}") from None
    if as_json:
        print(json.dumps([sweep.document(answer) for answer in found], indent=2))
        return
    render.table([sweep.row(answer) for answer in found], output=Output.TABLE)
    print()
    if len(found) > 1:
        print(plot.terminal(found))
        print(" " * 11 + ", ".join(f"{name} from {sweep.shown_size(start)}" for start, name in switches))
        return
    document = sweep.document(found[0])
    for stage in document["stages"]:
        stage |= {name: round(stage[name], 2) for name in ("time_us", "waiting_us")}
    for rows in (document["stages"], document["busiest_links"]):
        if rows:
            render.table(rows, output=Output.TABLE)
            print()
    render.drawing(board.lines(asked.fabric, asked.cores, found))


def _show_layout(answer: "Answer") -> None:
    from neuron_cli import render
    from neuron_cli.collectives import layout

    for rows in (layout.groups(answer), layout.exchanges(answer)):
        if rows:
            render.table(rows, output=Output.TABLE)
            print()
    for dimension, why in answer.refused.items():
        print(f"{dimension}: {why}")
    if answer.step is not None:
        render.table([layout.step_row(answer.step)], output=Output.TABLE)


@app.command()
def topology(
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    ultraserver: Annotated[
        str | None, typer.Option(help="Only this UltraServer; the beginning of its id will do.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Only the nodes of this NeuronNodePool.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Draw each node, however many there are.")] = False,
    output: Annotated[Picture, typer.Option("--output", "-o", help="For people, for programs, or an image.")] = (
        Picture.TABLE
    ),
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Draw the fleet: UltraServers, nodes, chips, what is used by whom, what is broken."""
    import json

    from neuron_cli import reading
    from neuron_cli.topology import drawing, svg, view

    with connected(kubeconfig, context, doing="reading the fleet") as cluster, installed():
        fleet = reading.fleet(cluster)
    try:
        fleet = view.only(fleet, pool=pool, ultraserver=ultraserver, node=node)
    except view.NotThere as absent:
        raise failure(str(absent)) from None
    if output is Picture.JSON:
        print(json.dumps(view.document(fleet), indent=2))
    elif output is Picture.SVG:
        print(svg.svg(fleet), end="")
    elif not fleet.nodes:
        print("No simulated nodes; `kubectl get neuronnodepools` and `neuron-sim doctor` say why.")
    else:
        drawing.draw(fleet, everything=everything)


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(help="pod/NAME, claim/NAME, gang/NAME or a workload such as job/NAME; NAME alone is a pod.")
    ],
    namespace: NamespaceOption = None,
    node: Annotated[str | None, typer.Option(help="Only what this node lacks.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="What each node lacks, one by one.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Say why a pod, a claim or a gang waits: what each node lacks, and what would have to be freed or changed."""
    from neuron_cli import explain as explaining

    with connected(kubeconfig, context, doing="looking for the cause") as cluster, installed():
        found = explaining.only(explaining.explain(cluster, what, namespace=namespace), node)
    explaining.show(found, output=output, everything=everything)


@app.command("what-if")
def what_if(
    file: Annotated[str | None, typer.Argument(help="Manifest, or a folder of them; - is standard input.")] = None,
    filename: Annotated[str | None, typer.Option("--filename", "-f", help="The same, as kubectl has it.")] = None,
    namespace: NamespaceOption = None,
    layout: Annotated[
        str | None,
        typer.Option(help="How long a step of training takes with tp=8,dp=4; instead of the pods' annotation."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With a layout: layers=32,hidden=4096,sequence=4096,batch=64.")
    ] = None,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Say where a manifest would land, without applying it.

    Exit status 0: all of its pods would find a node now; 3: not all of them would; 1: it could not be asked.
    """
    from neuron_cli import what_if as asking

    source = file or filename
    if source is None or (file and filename):
        raise failure("name one manifest: neuron-sim what-if FILE")
    try:
        items = asking.read(source)
    except asking.BadManifest as bad:
        raise failure(str(bad)) from None
    with connected(kubeconfig, context, doing="looking for places") as cluster, installed():
        refused, wanted, found = asking.ask(cluster, items, namespace=namespace, told=asking.Told(layout, model))
    asking.show(refused, wanted, found, output=output)
    if not asking.lands(refused, found):
        raise typer.Exit(3)


fault_app = typer.Typer(name="fault", help="Break simulated hardware, and heal it.", no_args_is_help=True)
app.add_typer(fault_app)


@fault_app.command("list")
def list_faults(
    output: OutputOption = Output.TABLE, kubeconfig: KubeconfigOption = None, context: ContextOption = None
) -> None:
    """Show what is broken, and why a fault is not active."""
    from neuron_cli import faults, render
    from neuron_cli.facts import OUR_API

    with connected(kubeconfig, context, doing="reading the faults") as cluster, installed():
        found = cluster.items(f"{OUR_API}/neuronfaults")
    if not found and output is Output.TABLE:
        print("Nothing is broken; `neuron-sim fault create --help` breaks something.")
        return
    render.table([faults.row(fault) for fault in found], output=output)


@fault_app.command("create")
def create_fault(
    name: Annotated[str, typer.Argument(help="Name of the NeuronFault.")],
    node: Annotated[str, typer.Option(help="Node whose hardware is broken.")],
    kind: Annotated[str, typer.Option("--type", help="What is broken, as HBMUncorrectable or DeviceLost.")],
    chip: Annotated[int | None, typer.Option(min=0, help="Chip; left out: the whole node.")] = None,
    core: Annotated[int | None, typer.Option(min=0, help="Physical core of the chip; left out: all of it.")] = None,
    peer: Annotated[int | None, typer.Option(min=0, help="For LinkDown: the chip at the other end.")] = None,
    efa: Annotated[int | None, typer.Option(min=0, help="For EFADown: the card; left out: all of them.")] = None,
    effect: Annotated[
        str | None, typer.Option(help="None, NoSchedule or NoExecute; left out: NoSchedule, None of what works worse.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="The cause in a sentence.")] = None,
    events_per_minute: Annotated[int | None, typer.Option(min=1, help="Of corrected ECC errors.")] = None,
    percent: Annotated[int | None, typer.Option(min=1, max=99, help="Of ThermalThrottle and MemoryLeak.")] = None,
    after: Annotated[str | None, typer.Option(help="Break so much later, such as 90s.")] = None,
    until: Annotated[str | None, typer.Option(help="Whole for good after so much time, such as 8h.")] = None,
    lasting: Annotated[str | None, typer.Option("--for", help="Heal after so much time, such as 5m.")] = None,
    every: Annotated[str | None, typer.Option(help="Break again and again; longer than --for.")] = None,
    times: Annotated[int | None, typer.Option(min=1, help="With --every: so many times.")] = None,
    mean_time_between: Annotated[
        str | None, typer.Option(help="Break by chance, in the mean after so much time, such as 2h.")
    ] = None,
    mean_duration: Annotated[str | None, typer.Option(help="And heal, in the mean after so much time.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the chance: the same seed, the same times.")] = 0,
    output: Annotated[
        Format | None, typer.Option("--output", "-o", help="Only print the object, for `kubectl apply -f -`.")
    ] = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Break hardware of a node, at once or by a schedule: its devices become unhealthy and get a taint."""
    from neuron_cli import faults, render
    from neuron_cli.facts import OUR_API

    try:
        body = faults.manifest(
            name,
            node=node,
            kind=kind,
            place=faults.Place(chip=chip, core=core, peer=peer, efa=efa),
            effect=effect,
            message=message,
            events_per_minute=events_per_minute,
            percent=percent,
            times=faults.Times(
                start_after=after,
                end_after=until,
                duration=lasting,
                repeat_every=every,
                repeats=times,
                mean_time_between=mean_time_between,
                mean_duration=mean_duration,
                seed=seed,
            ),
        )
    except faults.UnknownWord as unknown:
        raise failure(str(unknown)) from None
    if output is not None:
        render.manifest(body, output=output)
        return
    with connected(kubeconfig, context, doing="creating the fault") as cluster, installed():
        cluster.create(f"{OUR_API}/neuronfaults", body)
    print(
        f"{name} created: `neuron-sim fault list` says whether it is active, `neuron-sim fault delete {name}` heals it"
    )


@fault_app.command("delete")
def delete_fault(
    names: Annotated[list[str] | None, typer.Argument(help="Names of NeuronFaults.")] = None,
    scenario: Annotated[str | None, typer.Option(help="All that a replay of this scenario made.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Heal what faults broke."""
    from neuron_operator.names import LABEL_SCENARIO

    from neuron_cli.facts import OUR_API

    if [bool(names), scenario is not None, everything].count(True) != 1:
        raise failure("say which: names of NeuronFaults, or --scenario NAME, or --all")
    with connected(kubeconfig, context, doing="deleting faults") as cluster, installed():
        if not names:
            selector = {"labelSelector": f"{LABEL_SCENARIO}={scenario}"} if scenario else {}
            found = cluster.items(f"{OUR_API}/neuronfaults", **selector)
            names = [fault["metadata"]["name"] for fault in found]
        for name in names:
            cluster.delete(f"{OUR_API}/neuronfaults/{name}")
            print(f"{name} deleted")
    if not names:
        print("Nothing to delete; `neuron-sim fault list` says what is broken.")


@fault_app.command("replay")
def replay_faults(
    file: Annotated[str, typer.Argument(help="The scenario: docs/faults.md#scenarios.")],
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn: the same seed, the same day.")] = 0,
    speed: Annotated[float, typer.Option(min=0.01, max=10000, help="So many times as fast.")] = 1,
    node: Annotated[
        list[str] | None, typer.Option(help="Only this node; NAME=TYPE with --dry-run needs no cluster. Repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the timeline, break nothing.")] = False,
    output: OutputOption = Output.TABLE,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Replay a bad day: a NeuronFault for each thing that breaks, with its times. It goes on without this command."""
    from datetime import UTC, datetime

    from neuron_device_model.catalog import UnknownInstanceType

    from neuron_cli import render, scenarios
    from neuron_cli.facts import OUR_API

    given = dict(word.partition("=")[::2] for word in node or ())
    try:
        scenario = scenarios.read(file)
        if dry_run and given and all(given.values()):
            occurrences = scenarios.timeline(scenario, seed=seed, nodes=scenarios.typed(given))
        else:
            with connected(kubeconfig, context, doing="reading the nodes") as cluster, installed():
                there = cluster.items(f"{OUR_API}/neuronnodes")
            types = {item["metadata"]["name"]: item["spec"]["instanceType"] for item in there}
            chosen = {name: kind for name, kind in types.items() if not given or name in given}
            occurrences = scenarios.timeline(scenario, seed=seed, nodes=scenarios.typed(chosen))
    except (scenarios.BadScenario, UnknownInstanceType) as bad:
        raise failure(str(bad)) from None
    if occurrences:
        render.table([scenarios.row(one, speed=speed) for one in occurrences], output=output)
    elif output is Output.JSON:
        print("[]")
    if dry_run:
        return
    start = datetime.now(UTC)
    with connected(kubeconfig, context, doing="creating the faults") as cluster, installed():
        for body in scenarios.manifests(scenario, occurrences, start=start, speed=speed):
            cluster.create(f"{OUR_API}/neuronfaults", body)
    if output is Output.TABLE:
        print(
            f"{len(occurrences)} faults, from now on: `neuron-sim fault list` shows them, `neuron-sim fault delete"
            f" --scenario {scenario.name}` ends it"
        )


@app.command()
def doctor(
    output: OutputOption = Output.TABLE, kubeconfig: KubeconfigOption = None, context: ContextOption = None
) -> None:
    """Find out whether the cluster can run neuron-sim, what is missing and how to fix it.

    Exit status 0: nothing failed (there may be warnings); 1: something did. Writes nothing: features are
    probed with server-side dry runs.
    """
    from neuron_cli import facts, render
    from neuron_cli.doctor import Verdict, diagnose

    with connected(kubeconfig, context, doing="asking the cluster") as cluster:
        findings = diagnose(facts.gather(cluster))
    render.findings(findings, output=output)
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        raise typer.Exit(1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def agent(context: typer.Context) -> None:
    """Run the node agent in this process, e.g. alone: `neuron-sim agent --instance-type trn2.48xlarge`."""
    os.execv(sys.executable, [sys.executable, "-m", "neuron_dra_driver", *context.args])


@app.command()
def version() -> None:
    """Show the version of neuron-sim and of the SDK that pools simulate by default."""
    from importlib.metadata import version as installed_version

    from neuron_device_model.catalog import DEFAULT_SDK_VERSION

    print(f"neuron-sim {installed_version('neuron-sim')} (simulates Neuron SDK {DEFAULT_SDK_VERSION})")


@contextmanager
def connected(kubeconfig: Path | None, context: str | None, *, doing: str) -> Iterator["Cluster"]:
    """A cluster to read from, with a sign of life meanwhile and one line about what goes wrong."""
    from rich.console import Console

    from neuron_cli.cluster import Cluster, ClusterError

    # On stderr: stdout may be a pipe that expects JSON.
    with Console(stderr=True).status(f"{doing} …"):
        try:
            with Cluster(kubeconfig=kubeconfig, context=context) as cluster:
                yield cluster
        except ClusterError as error:
            raise failure(str(error)) from None


@contextmanager
def installed() -> Iterator[None]:
    """Say so where the kinds of neuron-sim are not there."""
    from neuron_cli.cluster import ClusterError, Refused

    try:
        yield
    except Refused as refused:
        raise ClusterError(NOT_INSTALLED) if refused.status == 404 else refused from None


def failure(message: str) -> typer.Exit:
    """Say what went wrong; raise what this returns."""
    print(f"neuron-sim: {message}", file=sys.stderr)
    return typer.Exit(1)
