{{/*
Where the two pods run: on the control plane if that takes pods (its nodes have kube-scheduler's image in any case),
else anywhere.
*/}}
{{- define "neuron-sim.schedulerPlacement" -}}
{{- $scheduler := .Values.scheduler | default dict -}}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $scheduler.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $scheduler.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  nodeAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        preference:
          matchExpressions:
            - {key: node-role.kubernetes.io/control-plane, operator: Exists}
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - {key: type, operator: NotIn, values: [kwok]}
{{- end }}
