{{/*
What pods have in common. "kasaga.pod" gives the values for one component as YAML: those for all pods, and its own `pod` with
the same names. The examples are other people's services: what is added for the sagas' code isn't for them.
(dict "root" . "own" .Values.orchestrator.pod "component" "orchestrator")
*/}}
{{- define "kasaga.pod" -}}
{{- $all := .root.Values -}}
{{- $own := .own -}}
{{- $pod := dict "component" .component -}}
{{- range $key := list "podAnnotations" "podLabels" "nodeSelector" -}}
{{- $_ := set $pod $key (mergeOverwrite (dict) (get $all $key | default dict) (get $own $key | default dict)) -}}
{{- end -}}
{{- $foreign := hasPrefix "example-" .component -}}
{{- range $key := list "extraEnv" "extraEnvFrom" "extraVolumes" "extraVolumeMounts" -}}
{{- $_ := set $pod $key (concat ($foreign | ternary list (get $all $key | default list)) (get $own $key | default list)) -}}
{{- end -}}
{{- range $key := list "tolerations" "affinity" "priorityClassName" "topologySpreadConstraints" -}}
{{- $_ := set $pod $key (hasKey $own $key | ternary (get $own $key) (get $all $key)) -}}
{{- end -}}
{{- toYaml $pod -}}
{{- end }}

{{/*
A pod's metadata: (dict "root" . "pod" $pod "annotations" (dict …)). The chart's version isn't in it: it alone must roll no pod.
*/}}
{{- define "kasaga.pod.metadata" -}}
labels:
  {{- include "kasaga.selector" (dict "root" .root "component" .pod.component) | nindent 2 }}
  app.kubernetes.io/part-of: kasaga
  {{- with .pod.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (dict) .annotations (.pod.podAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
As whom a pod runs, and where: (dict "root" . "pod" $pod "serviceAccountName" "…"). Service links are off: Kubernetes would
set KASAGA_KAFKA_PORT for a Service that is called kasaga-kafka, and every KASAGA_KAFKA_… is a setting of librdkafka.
*/}}
{{- define "kasaga.pod.placement" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .spread }}
{{- /* Counted are the pods of one component and one roll-out: those that are about to go would push the new ones together. */}}
{{- $labels := include "kasaga.selector" (dict "root" .root "component" .pod.component) | fromYaml }}
{{- $counted := dict "labelSelector" (dict "matchLabels" $labels) "matchLabelKeys" (list "pod-template-hash") }}
{{- with .pod.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml (hasKey . "labelSelector" | ternary . (mergeOverwrite (deepCopy $counted) .)) | nindent 4 | trim }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
A container's environment. Secrets are files: what a process prints of its environment, or hands on, holds none. The headers for
the collector alone are a variable, since OpenTelemetry reads them nowhere else.
(dict "root" . "pod" $pod "kafka" true "archive" true)
*/}}
{{- define "kasaga.env" -}}
- name: KASAGA_DATABASE_URL_FILE
  value: /etc/kasaga/database/url
{{- if .kafka }}
{{- range $option, $key := .root.Values.kafka.existingSecret.keys }}
- name: {{ printf "KASAGA_KAFKA_%s_FILE" ($option | upper | replace "." "_") }}
  value: /etc/kasaga/kafka/{{ $option }}
{{- end }}
{{- if .root.Values.payloads.existingSecret.name }}
- name: KASAGA_PAYLOAD_KEYS_FILE
  value: /etc/kasaga/payloads/keys
{{- end }}
{{- if .root.Values.payloads.store.existingSecret.name }}
- name: KASAGA_PAYLOAD_STORE_OPTIONS_FILE
  value: /etc/kasaga/payload-store/options
{{- end }}
{{- if and .archive .root.Values.archive.existingSecret.name }}
- name: KASAGA_ARCHIVE_OPTIONS_FILE
  value: /etc/kasaga/archive/options
{{- end }}
{{- with include "kasaga.tracing.env" .root }}
{{- . }}
{{- end }}
{{- end }}
{{- with .pod.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Spans say which pod made them. */}}
{{- define "kasaga.tracing.env" }}
{{- if .Values.tracing.endpoint }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE)
  {{- range $name, $value := .Values.tracing.resourceAttributes }},{{ $name }}={{ $value }}{{ end }}
{{- with .Values.tracing.headers.existingSecret }}
{{- if .name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* (dict "pod" $pod "database" (dict "name" "…" "key" "…") "token" (the same) "kafka" .Values.kafka "payloads" .Values.payloads "archive" .Values.archive) */}}
{{- define "kasaga.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with .database }}
- name: database
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: url
{{- end }}
{{- with .token }}
- name: token
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: token
{{- end }}
{{- with .kafka }}
{{- if .existingSecret.keys }}
- name: kafka
  secret:
    secretName: {{ required "kafka.existingSecret.keys are named, and kafka.existingSecret.name is empty" .existingSecret.name }}
    items:
      {{- range $option, $key := .existingSecret.keys }}
      - key: {{ $key }}
        path: {{ $option }}
      {{- end }}
{{- end }}
{{- end }}
{{- with .payloads }}
{{- if .existingSecret.name }}
- name: payloads
  secret:
    secretName: {{ .existingSecret.name }}
    items:
      - key: {{ .existingSecret.key }}
        path: keys
{{- end }}
{{- with .store.existingSecret }}
{{- if .name }}
- name: payload-store
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: options
{{- end }}
{{- end }}
{{- end }}
{{- with .archive }}
{{- if .existingSecret.name }}
- name: archive
  secret:
    secretName: {{ .existingSecret.name }}
    items:
      - key: {{ .existingSecret.key }}
        path: options
{{- end }}
{{- end }}
{{- with .pod.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kasaga.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- with .database }}
- name: database
  mountPath: /etc/kasaga/database
  readOnly: true
{{- end }}
{{- with .token }}
- name: token
  mountPath: /etc/kasaga/token
  readOnly: true
{{- end }}
{{- with .kafka }}
{{- if .existingSecret.keys }}
- name: kafka
  mountPath: /etc/kasaga/kafka
  readOnly: true
{{- end }}
{{- end }}
{{- with .payloads }}
{{- if .existingSecret.name }}
- name: payloads
  mountPath: /etc/kasaga/payloads
  readOnly: true
{{- end }}
{{- if .store.existingSecret.name }}
- name: payload-store
  mountPath: /etc/kasaga/payload-store
  readOnly: true
{{- end }}
{{- end }}
{{- with .archive }}
{{- if .existingSecret.name }}
- name: archive
  mountPath: /etc/kasaga/archive
  readOnly: true
{{- end }}
{{- end }}
{{- with .pod.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
/live says whether the loop turns, and nothing about Postgres or Kafka: their loss makes a pod unready and ends none.
Between the first "no" of /live and the restart there are up to 45 s more, so that the process's own watchdog comes first.
All are asked on the port for metrics, which threads of their own serve: the API's other port may be busy, and that is no reason.
*/}}
{{- define "kasaga.probes" -}}
startupProbe:
  httpGet:
    path: /live
    port: metrics
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /live
    port: metrics
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /ready
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}
