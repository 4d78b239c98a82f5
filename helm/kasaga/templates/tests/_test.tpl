{{/*
A pod of `helm test`, up to its container's environment. It stays until the next one, so that `helm test --logs` can read it.
(dict "root" . "test" "api" "weight" 1 "volumes" (dict …))
*/}}
{{- define "kasaga.test.head" -}}
{{- $pod := include "kasaga.pod" (dict "root" .root "own" dict "component" "test") | fromYaml -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "kasaga.fullname" .root }}-test-{{ .test }}
  labels:
    {{- include "kasaga.labels" (dict "root" .root "component" "test") | nindent 4 }}
    {{- with $pod.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    helm.sh/hook: test
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation
    {{- with $pod.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "kasaga.pod.placement" (dict "root" .root "pod" $pod "serviceAccountName" (include "kasaga.serviceAccountName" .root)) | nindent 2 }}
  restartPolicy: Never
  activeDeadlineSeconds: 180
  volumes:
    {{- include "kasaga.volumes" (mergeOverwrite (dict "pod" $pod) .volumes) | nindent 4 }}
  containers:
    - name: test
      image: {{ include "kasaga.app.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      securityContext:
        {{- toYaml .root.Values.securityContext | nindent 8 }}
      resources:
        requests:
          cpu: 50m
          memory: 96Mi
        limits:
          memory: 256Mi
      volumeMounts:
        {{- include "kasaga.volumeMounts" (mergeOverwrite (dict "pod" $pod) .volumes) | nindent 8 }}
{{- end }}
