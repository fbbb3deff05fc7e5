{{/*
The scheduler's configuration as AWS ships it. Only the namespace differs, and the Lease, which is named after the
scheduler: AWS's would be that of the cluster's own.
*/}}
{{- define "neuron-sim.mySchedulerConfig" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
  - schedulerName: my-scheduler
extenders:
  - urlPrefix: http://k8s-neuron-scheduler.{{ .Release.Namespace }}.svc:12345
    filterVerb: filter
    bindVerb: bind
    enableHTTPS: false
    nodeCacheCapable: true
    ignorable: false
    managedResources:
      - {name: aws.amazon.com/neuron, ignoredByScheduler: false}
      - {name: aws.amazon.com/neuroncore, ignoredByScheduler: false}
      - {name: aws.amazon.com/neurondevice, ignoredByScheduler: false}
leaderElection:
  leaderElect: true
  resourceLock: leases
  resourceName: my-scheduler
  resourceNamespace: {{ .Release.Namespace }}
{{- end }}
