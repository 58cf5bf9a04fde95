#!/usr/bin/env bash
# Make the secrets with random passwords: create.sh SERVICES_NAMESPACE STEPS_NAMESPACE
# Secrets that are there already are left alone. Needs kubectl, openssl and unmask.
set -euo pipefail
services=${1:?namespace of MinIO, MLflow and serving}
steps=${2:?namespace of pipeline steps}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
umask 077
random() { openssl rand -hex 24; }
missing() { ! kubectl -n "$1" get secret "$2" >/dev/null 2>&1; }
copy() { kubectl -n "$services" get secret "$1" -o go-template="{{index .data \"$2\"}}" | base64 -d; }

if missing "$services" unmask-object-store; then
  random >"$scratch/secretkey"
  kubectl -n "$services" create secret generic unmask-object-store \
    --from-literal=endpoint="http://minio.$services.svc.cluster.local:9000" --from-literal=accesskey=unmask \
    --from-file=secretkey=<(tr -d '\n' <"$scratch/secretkey")
fi
if missing "$services" unmask-tracking-server; then
  database=$(random)
  password=$(random)
  uri="postgresql+pg8000://mlflow:$database@postgres.$services.svc.cluster.local:5432/mlflow"
  {
    echo "[mlflow]"
    echo "default_permission = READ"
    echo "database_uri = $uri"
    echo "admin_username = unmask"
    echo "admin_password = $password"
    echo "authorization_function = mlflow.server.auth:authenticate_request_basic_auth"
  } >"$scratch/basic_auth.ini"
  kubectl -n "$services" create secret generic unmask-tracking-server \
    --from-file=postgres-password=<(printf %s "$database") \
    --from-file=backend-store-uri=<(printf %s "$uri") \
    --from-file=flask-secret-key=<(random | tr -d '\n') --from-file="$scratch/basic_auth.ini"
  kubectl -n "$services" create secret generic unmask-tracking --from-literal=username=unmask \
    --from-file=password=<(printf %s "$password")
fi
if missing "$services" unmask-serving; then
  unmask serve-key prometheus --keys "$scratch/keys" | tail -n 1 | tr -d '\n' >"$scratch/metrics-key"
  kubectl -n "$services" create secret generic unmask-serving \
    --from-file="$scratch/keys" --from-file="$scratch/metrics-key"
fi
if [ "$steps" != "$services" ]; then
  for secret in unmask-object-store unmask-tracking; do
    missing "$steps" "$secret" || continue
    for key in $(kubectl -n "$services" get secret "$secret" -o go-template='{{range $k, $v := .data}}{{$k}} {{end}}'); do
      copy "$secret" "$key" >"$scratch/copy-$key"
    done
    kubectl -n "$steps" create secret generic "$secret" \
      $(cd "$scratch" && for file in copy-*; do echo "--from-file=${file#copy-}=$scratch/$file"; done)
    rm -f "$scratch"/copy-*
  done
fi
