{{/*
What a serving pod is given. Strings that begin with `CEL:` are expressions over the pod, the rest is plain;
serving/kustomize/agent holds the same for clusters without MutatingAdmissionPolicy, and a test compares the pods.
*/}}
{{- define "modelparams.agent" -}}
{{- $agent := .Values.agent }}
container:
  name: modelparams-agent
  image: {{ include "modelparams.image" (list . $agent.image) }}
  imagePullPolicy: {{ $agent.image.pullPolicy }}
  command: [modelparams-agent]
  restartPolicy: Always
  env:
  - {name: MODELPARAMS_MODEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['modelparams.dev/model']"}}}
  - {name: MODELPARAMS_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: MODELPARAMS_POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  - {name: MODELPARAMS_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
  - {name: MODELPARAMS_TRUST, value: /etc/modelparams/trust/trust.json}
  - {name: MODELPARAMS_AGENT_METRICS_PORT, value: {{ $agent.metricsPort | quote }}}
  - {name: MODELPARAMS_AGENT_HEALTH_PORT, value: {{ $agent.healthPort | quote }}}
  - {name: MODELPARAMS_LOG_LEVEL, value: {{ $agent.logLevel | quote }}}
  - {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ $agent.storeSecret }}, key: accessKeyID, optional: true}}}
  - {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ $agent.storeSecret }}, key: secretAccessKey, optional: true}}}
  - {name: AWS_SESSION_TOKEN, valueFrom: {secretKeyRef: {name: {{ $agent.storeSecret }}, key: sessionToken, optional: true}}}
  {{- with $agent.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - {name: mp-agent, containerPort: {{ $agent.metricsPort }}}
  - {name: mp-health, containerPort: {{ $agent.healthPort }}}
  livenessProbe:
    httpGet: {path: /healthz, port: mp-health}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml $agent.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  volumeMounts:
  - {name: modelparams-runtime, mountPath: /run/modelparams}
  - {name: modelparams-identity, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  - {name: modelparams-keys, mountPath: /etc/modelparams/keys, readOnly: true}
  - {name: modelparams-trust, mountPath: /etc/modelparams/trust, readOnly: true}
volumes:
- name: modelparams-runtime
  emptyDir: {medium: Memory, sizeLimit: "CEL:variables.memory"}
- name: modelparams-identity
  projected:
    sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3600}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
# Optional: the agent says in its order's status which key it misses, and goes on when it comes.
- name: modelparams-keys
  projected:
    sources: >-
      CEL:variables.keys.map(k, {"secret": dyn({"name": dyn(k), "optional": dyn(true),
      "items": dyn([{"key": dyn("key"), "path": dyn(k + "/key")}])})})
- name: modelparams-trust
  configMap: {name: modelparams-trust}
mount: {name: modelparams-runtime, mountPath: /run/modelparams}
# That a version is applied is what makes the pod ready.
readiness:
  httpGet: {path: /readyz, port: "CEL:variables.enginePort"}
  periodSeconds: 2
{{- end }}

{{/* A value as CEL. The server wants all elements of a literal to have one type; dyn() gives them one. */}}
{{- define "modelparams.cel" -}}
{{- if kindIs "map" . -}}
{ {{- $comma := "" }}{{ range $key, $value := . }}{{ $comma }}{{ $key | quote }}: dyn({{ include "modelparams.cel" $value }}){{ $comma = ", " }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[{{- $comma := "" }}{{ range . }}{{ $comma }}dyn({{ include "modelparams.cel" . }}){{ $comma = ", " }}{{ end -}}]
{{- else if kindIs "string" . -}}
{{- if hasPrefix "CEL:" . }}{{ trimPrefix "CEL:" . }}{{ else }}{{ toJson . }}{{ end }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else -}}
{{ int64 . }}
{{- end }}
{{- end }}
