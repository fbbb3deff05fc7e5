{{/*
Whether an object for the Prometheus operator is made: auto (the default) where the cluster has its kind. Call with
(dict "root" $ "value" "podMonitor" "kind" "PodMonitor").
*/}}
{{- define "neuron-sim.monitoringWanted" -}}
{{- $wish := (index (.root.Values.metrics | default dict) .value | default dict).enabled }}
{{- $there := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) }}
{{- if and (kindIs "bool" $wish) $wish (not $there) }}
{{- fail (printf "metrics.%s.enabled is set, but this cluster has no %s (monitoring.coreos.com/v1): install the Prometheus operator first, or leave the value at auto (docs/dashboards.md says how to do without)" .value .kind) }}
{{- end }}
{{- if kindIs "bool" $wish }}{{ if $wish }}true{{ end }}{{ else if $there }}true{{ end }}
{{- end }}

{{/* Whether agents are scraped by a ServiceMonitor: only where that is asked for, because the PodMonitor does it. */}}
{{- define "neuron-sim.serviceMonitor" -}}
{{- if ((.Values.metrics).serviceMonitor).enabled }}
{{- include "neuron-sim.monitoringWanted" (dict "root" $ "value" "serviceMonitor" "kind" "ServiceMonitor") }}
{{- end }}
{{- end }}
