{{/*
Names are fixed, not derived from the release: the driver's name, the CRDs and the DeviceClasses exist once per
cluster anyway, so a second release must collide (Helm then says which object belongs to whom).
*/}}

{{/* Call with (dict "root" $ "component" "agent"). */}}
{{- define "neuron-sim.selectorLabels" -}}
app.kubernetes.io/name: neuron-sim
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Call with (dict "root" $ "component" "agent"). */}}
{{- define "neuron-sim.labels" -}}
{{ include "neuron-sim.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: neuron-sim
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
neuron-sim.dev/simulated: "true"
{{- end }}

{{- define "neuron-sim.image" -}}
{{- $image := .Values.image | default dict -}}
{{- printf "%s:%s" ($image.repository | default "neuron-sim/neuron-sim") ($image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- define "neuron-sim.imagePullPolicy" -}}
{{- (.Values.image).pullPolicy | default "IfNotPresent" -}}
{{- end }}

{{- define "neuron-sim.imagePullSecrets" -}}
{{- with (.Values.image).pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The resource by which a plain pod gets one chip here, empty if it needs a claim: DRA serves it from Kubernetes 1.36 on,
before that the device plugins do, unless all pools insist on DRA.
*/}}
{{- define "neuron-sim.plainResource" -}}
{{- $roads := list }}
{{- range $name, $spec := .Values.pools }}
{{- if $spec }}{{- $roads = append $roads ($spec.resources | default "Auto") }}{{- end }}
{{- end }}
{{- $name := .Values.extendedResourceName }}
{{- if and $name (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) -}}
{{ $name }}
{{- else if or (has "DevicePlugin" $roads) (and $name (or (not $roads) (has "Auto" $roads))) -}}
aws.amazon.com/neuron
{{- end }}
{{- end }}

{{/* The agents' second driver: the EFA cards of their nodes. Not a value: nobody else has this name. */}}
{{- define "neuron-sim.efaDriver" -}}efa.neuron-sim.dev{{- end }}

{{/* The driver of UltraServers as devices, and their DeviceClass: the operator publishes, the agents prepare. */}}
{{- define "neuron-sim.ultraServerDriver" -}}ultraserver.neuron-sim.dev{{- end }}

{{/* What the "restricted" Pod Security level asks for, and a root file system that cannot be written. */}}
{{- define "neuron-sim.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "neuron-sim.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Call with (dict "root" $ "port" 8000). */}}
{{- define "neuron-sim.scrapeAnnotations" -}}
{{- if (.root.Values.metrics).scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/path: /metrics
prometheus.io/port: {{ .port | quote }}
{{- end }}
{{- end }}

{{/* Whether the operator places gangs. */}}
{{- define "neuron-sim.gangs" -}}
{{- $gangs := .Values.gangs | default dict }}
{{- if and (or (not (hasKey $gangs "enabled")) $gangs.enabled) (not $gangs.podGroups) }}true{{ end }}
{{- end }}

{{/* Whether kube-scheduler does, by PodGroups. */}}
{{- define "neuron-sim.podGroups" -}}
{{- $gangs := .Values.gangs | default dict }}
{{- if and (or (not (hasKey $gangs "enabled")) $gangs.enabled) $gangs.podGroups }}
{{- if not (.Capabilities.APIVersions.Has "scheduling.k8s.io/v1alpha2/PodGroup") }}
{{- fail "gangs.podGroups: this cluster does not serve PodGroups: turn on scheduling.k8s.io/v1alpha2 and its feature gates (docs/gangs.md), or set it to false" }}
{{- end }}true{{ end }}
{{- end }}

{{/* Whether gangs have a commit barrier: binding conditions of devices of UltraServers. */}}
{{- define "neuron-sim.gangBarrier" -}}
{{- if and (include "neuron-sim.gangs" .) (.Values.gangs).barrier }}
{{- if not (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail "gangs.barrier: this Kubernetes has no binding conditions of devices: use 1.36 or newer, or set it to false" }}
{{- end }}
{{- if not .Values.ultraServerDevices }}
{{- fail "gangs.barrier: it is a device of UltraServers, and ultraServerDevices is 0: give a number, or set it to false" }}
{{- end }}true{{ end }}
{{- end }}

{{/*
What adds the gate to pods of gangs: "policy" where the API server has MutatingAdmissionPolicy (Kubernetes 1.36), else
"webhook"; empty where it is not wished.
*/}}
{{- define "neuron-sim.addsGate" -}}
{{- $gangs := .Values.gangs | default dict }}
{{- $wished := or (not (hasKey $gangs "addGate")) $gangs.addGate }}
{{- if and (include "neuron-sim.gangs" .) $wished -}}
{{- if or $gangs.webhook (not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")) }}webhook{{ else }}policy{{ end }}
{{- end }}
{{- end }}
