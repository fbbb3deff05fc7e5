"""Label selectors, with the meaning that Kubernetes gives them."""

from collections.abc import Mapping

from neuron_operator.resources import LabelSelector, LabelSelectorRequirement


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector; an empty selector is satisfied by all."""
    return all(labels.get(key) == value for key, value in (selector.match_labels or {}).items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions or ()
    )


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    present = requirement.key in labels
    listed = labels.get(requirement.key) in (requirement.values or ())
    match requirement.operator:
        case "In":
            return present and listed
        case "NotIn":  # as in Kubernetes, a node without the label satisfies NotIn
            return not (present and listed)
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
