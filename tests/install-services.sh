#!/usr/bin/env bash
# What the integration tests need beside Python. Installs system packages only where it may: CI=true, root, apt.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v promtool >/dev/null || missing+=(prometheus) # checks the alert rules

if ((${#missing[@]})); then
  if [[ ${CI:-} == true && $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    timeout 120 apt-get update -qq
    timeout 420 apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "missing: ${missing[*]}; tests that need them will skip -> apt-get install ${missing[*]}" >&2
  fi
fi

# The jars now, so that no test waits for a download.
if command -v java >/dev/null; then
  python -c 'from penstock.local.kafka import fetch; print("Kafka:", fetch(seconds=300))'
  PYTHONPATH=. python -m tests.s3
fi
