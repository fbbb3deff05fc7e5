{{/* Whether pools may make virtual nodes. */}}
{{- define "neuron-sim.virtualNodes" -}}
{{- if (.Values.virtualNodes).enabled }}true{{ end }}
{{- end }}

{{/* Where the agent of virtual nodes and KWOK run: on machines. */}}
{{- define "neuron-sim.virtualNodesPlacement" -}}
{{- $virtual := .Values.virtualNodes | default dict -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $virtual.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $virtual.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: type, operator: NotIn, values: [kwok]}
{{- end }}
