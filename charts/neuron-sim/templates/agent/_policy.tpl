{{/* What every policy on the agent's writes has in common. Call with (dict "root" $ "name" "pods"). */}}
{{- define "neuron-sim.agentPolicy" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: neuron-sim-agent-{{ .name }}
  labels:
    {{- include "neuron-sim.labels" (dict "root" .root "component" "agent") | nindent 4 }}
{{- end }}

{{- define "neuron-sim.agentPolicyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: neuron-sim-agent-{{ .name }}
  labels:
    {{- include "neuron-sim.labels" (dict "root" .root "component" "agent") | nindent 4 }}
spec:
  policyName: neuron-sim-agent-{{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* Call with the root. */}}
{{- define "neuron-sim.isTheAgent" -}}
- name: is-the-agent
  expression: request.userInfo.username == {{ printf "system:serviceaccount:%s:neuron-sim-agent" .Release.Namespace | quote }}
{{- end }}

{{- define "neuron-sim.nodeOfTheToken" -}}
- name: node
  expression: request.userInfo.?extra[?'authentication.kubernetes.io/node-name'][?0].orValue('')
{{- end }}

{{- define "neuron-sim.tokenNamesANode" -}}
- expression: variables.node != ''
  reason: Forbidden
  message: {{ include "neuron-sim.tokenNamesNoNode" . | quote }}
{{- end }}

{{- define "neuron-sim.tokenNamesNoNode" -}}
the token of this neuron-sim agent names no node: use the token of the agent's own pod, or bind one to a node
{{- print " (kubectl create token neuron-sim-agent --bound-object-kind Node --bound-object-name NODE)" }}
{{- end }}
