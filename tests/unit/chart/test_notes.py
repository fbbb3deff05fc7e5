"""What the user reads after an install: the next three commands, ready to be copied."""

import json
import re
import shlex


def commands(notes):
    return [line.strip() for line in notes.splitlines() if re.match(r" {5}(kubectl|helm) ", line)]


def test_they_name_the_next_three_commands(render):
    see, prove, run = commands(render.notes(namespace="somewhere"))
    assert see == "kubectl get neuronnodepools,neuronnodes"
    assert prove == "helm test mine --namespace somewhere"
    assert run.startswith("kubectl run ")


def test_the_pod_in_them_asks_for_a_chip(render):
    words = shlex.split(commands(render.notes())[2])
    (overrides,) = [word.removeprefix("--overrides=") for word in words if word.startswith("--overrides=")]
    (container,) = json.loads(overrides)["spec"]["containers"]
    assert container["resources"]["limits"] == {"aws.amazon.com/neuron": 1}


def test_they_say_that_all_is_simulated_and_how_to_undo_it(render):
    notes = render.notes()
    assert "SIMULATED" in notes
    assert "helm uninstall mine --namespace default" in notes


def test_without_pools_they_say_what_is_missing(render):
    assert "No pool is defined" in render.notes({"pools": None})
    assert "No pool is defined" not in render.notes()
