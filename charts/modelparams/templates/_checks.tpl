{{/* What contradicts itself, or cannot work, one sentence each. */}}
{{- define "modelparams.problems" -}}
{{- $v := .Values }}
{{- if and (not $v.trust.policy) (not $v.trust.existingConfigMap) }}
- trust.policy is empty, so that no version could ever be trusted: make one by `modelparams keys trust release.pem --out trust.json` and add --set-file trust.policy=trust.json
{{- end }}
{{- if and $v.trust.policy $v.trust.existingConfigMap }}
- trust.policy and trust.existingConfigMap are both given: leave one of them out
{{- end }}
{{- if $v.trust.policy }}
{{- $policy := fromJson $v.trust.policy }}
{{- if or (hasKey $policy "Error") (not (kindIs "map" $policy.keys)) (not $policy.threshold) }}
- trust.policy is no trust policy, which is {"threshold": 1, "keys": {"<key id>": "<public key in hex>"}}: give the file that `modelparams keys trust` wrote, with --set-file
{{- else if gt (int $policy.threshold) (len $policy.keys) }}
- trust.policy wants {{ $policy.threshold }} signatures and names {{ len $policy.keys }} keys, so that no version could ever be trusted: lower the threshold or add keys
{{- end }}
{{- end }}
{{- if not (and (lt (float64 $v.lease.retryPeriod) (float64 $v.lease.renewDeadline)) (lt (float64 $v.lease.renewDeadline) (float64 $v.lease.duration))) }}
- lease.retryPeriod ({{ $v.lease.retryPeriod }}) < lease.renewDeadline ({{ $v.lease.renewDeadline }}) < lease.duration ({{ $v.lease.duration }}) does not hold: two operators could act at once
{{- end }}
{{- range list (list "image" $v.image) (list "agent.image" $v.agent.image) }}
{{- $image := index . 1 }}
{{- if and $image.tag $image.digest }}
- {{ index . 0 }}.tag and {{ index . 0 }}.digest are both given, and may name different images: leave one of them out
{{- end }}
{{- if and $image.digest (not (regexMatch "^sha256:[0-9a-f]{64}$" $image.digest)) }}
- {{ index . 0 }}.digest is {{ $image.digest }}, which is no digest: write sha256: and 64 hexadecimal digits
{{- end }}
{{- end }}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?([KMGT]i?|k)?$" (toString $v.agent.memory)) }}
- agent.memory is {{ $v.agent.memory }}, which is no quantity of memory: write twice the size of the largest version, such as 4Gi
{{- end }}
{{- range $v.allowedEndpoints }}
{{- if not (or (eq . "aws") (regexMatch "^https?://[^/ ]+/?$" .)) }}
- allowedEndpoints has {{ . }}, which is neither a URL such as https://s3.example.com nor `aws`
{{- end }}
{{- end }}
{{- $seen := dict }}
{{- range $v.serving.namespaces }}
{{- if hasKey $seen .name }}
- serving.namespaces names {{ .name }} twice: join the two entries
{{- end }}
{{- $_ := set $seen .name true }}
{{- if and $v.watch.namespaces (not (has .name $v.watch.namespaces)) }}
- serving.namespaces names {{ .name }}, which the operator does not watch: add it to watch.namespaces, or empty that list to watch the whole cluster
{{- end }}
{{- end }}
{{- if and (eq $v.agent.injection "required") (not (include "modelparams.injects" .)) }}
- agent.injection is required, and Kubernetes {{ .Capabilities.KubeVersion.Version }} has no MutatingAdmissionPolicy, which came with 1.36: upgrade the cluster, or set agent.injection=none and add the component serving/kustomize/agent to your workloads
{{- end }}
{{- range list (list "serviceMonitor" "ServiceMonitor") (list "podMonitor" "PodMonitor") (list "prometheusRule" "PrometheusRule") }}
{{- if and (get $v.metrics (index . 0)).enabled (not ($.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" (index . 1)))) }}
- metrics.{{ index . 0 }}.enabled is true, and the cluster has no {{ index . 1 }}: install the Prometheus operator first, or set it to false
{{- end }}
{{- end }}
{{- if and (not $v.crds.install) (lookup "v1" "Namespace" "" "kube-system") }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $wanted := $.Files.Get $path | fromYaml }}
{{- $found := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $wanted.metadata.name }}
{{- if not $found }}
- crds.install is false, and the cluster has no {{ $wanted.metadata.name }}: set crds.install=true, or install this release's first, by `kubectl apply --server-side -f crds/`
{{- else if ne (include "modelparams.fields" $wanted) (include "modelparams.fields" $found) }}
- crds.install is false, and the cluster's {{ $wanted.metadata.name }} has other fields than this release's: apply this release's first, by `kubectl apply --server-side -f crds/`, or set crds.install=true
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The names of all fields that a CustomResourceDefinition has, by which another release's is told. */}}
{{- define "modelparams.fields" -}}
{{- range .spec.versions -}}
{{ .name }}:{{ include "modelparams.names" .schema.openAPIV3Schema.properties.spec }};{{ include "modelparams.names" .schema.openAPIV3Schema.properties.status }};
{{- end }}
{{- end }}
{{- define "modelparams.names" -}}
{{- range $name, $schema := .properties }}{{ $name }}({{ include "modelparams.names" $schema }}){{ end }}
{{- with .items }}[{{ include "modelparams.names" . }}]{{ end }}
{{- end }}
