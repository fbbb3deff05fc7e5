{{/*
A Job that runs one command of the operator's image around a Helm operation.
Call with (dict "root" $ "name" "uninstall" "event" "pre-delete" "args" (list …)).

A hook is never retried: what it refuses stays refused until the user acts, and Helm prints the log of the failed
attempt (hook-output-log-policy, Helm 3.18+) before the Job is deleted.
*/}}
{{- define "neuron-sim.hookJob" -}}
{{- $operator := .root.Values.operator | default dict }}
{{- $labels := dict "root" .root "component" "hook" }}
apiVersion: batch/v1
kind: Job
metadata:
  name: neuron-sim-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "neuron-sim.labels" $labels | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .event }}
    helm.sh/hook-weight: "0"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: 0
  # Below Helm's own limit of five minutes, so that it is the hook that ends, with a log.
  activeDeadlineSeconds: 240
  template:
    metadata:
      labels:
        {{- include "neuron-sim.labels" $labels | nindent 8 }}
    spec:
      serviceAccountName: neuron-sim-{{ .name }}
      automountServiceAccountToken: true
      restartPolicy: Never
      {{- with include "neuron-sim.imagePullSecrets" .root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      nodeSelector:
        kubernetes.io/os: linux
        {{- with $operator.nodeSelector }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $operator.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - {key: type, operator: NotIn, values: [kwok]}
      securityContext:
        {{- include "neuron-sim.restrictedPod" .root | nindent 8 }}
      containers:
        - name: {{ .name }}
          image: {{ include "neuron-sim.image" .root }}
          imagePullPolicy: {{ include "neuron-sim.imagePullPolicy" .root }}
          command: [python, -m, neuron_operator, {{ .name }}]
          {{- with .args }}
          args:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          resources:
            requests: {cpu: 10m, memory: 64Mi}
            limits: {memory: 256Mi}
          securityContext:
            {{- include "neuron-sim.restrictedContainer" .root | nindent 12 }}
{{- end }}

{{/* Annotations of what must exist before a hook's Job and be gone after it. Call with (dict "event" "pre-delete"). */}}
{{- define "neuron-sim.hookIdentity" -}}
helm.sh/hook: {{ .event }}
helm.sh/hook-weight: "-10"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}
