{{/* The operator's name: of its Deployment, service account, Lease and roles. */}}
{{- define "modelparams.name" -}}
{{ .Release.Name | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{- define "modelparams.selector" -}}
app.kubernetes.io/name: modelparams-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "modelparams.labels" -}}
{{ include "modelparams.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* An image's reference, from (list root image). */}}
{{- define "modelparams.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* A file of operator/deploy with this release's names. */}}
{{- define "modelparams.deploy" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (printf "files/deploy/%s" (index . 1))
  | replace "system:serviceaccount:modelparams-system:modelparams-operator" (printf "system:serviceaccount:%s:%s" $root.Release.Namespace (include "modelparams.name" $root))
  | replace "namespace: modelparams-system" (printf "namespace: %s" $root.Release.Namespace)
  | replace "name: modelparams-operator\n" (printf "name: %s\n" (include "modelparams.name" $root))
  | replace "name: modelparams-operator," (printf "name: %s," (include "modelparams.name" $root))
  | replace "name: modelparams-operator}" (printf "name: %s}" (include "modelparams.name" $root))
  | replace "name: modelparams-operator-lease" (printf "name: %s-lease" (include "modelparams.name" $root))
  | replace "resourceNames: [modelparams-operator]" (printf "resourceNames: [%s]" (include "modelparams.name" $root)) -}}
{{- end }}

{{/* The ConfigMap of the trust policy in the release's namespace. */}}
{{- define "modelparams.trust" -}}
{{ .Values.trust.existingConfigMap | default (printf "%s-trust" (include "modelparams.name" .)) }}
{{- end }}

{{/* "true" where the API server adds the agent. */}}
{{- define "modelparams.injects" -}}
{{- if and (ne .Values.agent.injection "none") (semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version) }}true{{ end }}
{{- end }}
