#!/bin/sh
# Check the files in this directory without a network: the Dockerfile by hadolint, compose.yaml by its schema, the
# systemd units by systemd itself where it is installed. `make check` calls it with .venv/bin on the PATH.
set -eu
cd "$(dirname "$0")"

hadolint --failure-threshold info Dockerfile
echo "deploy/Dockerfile: ok"

check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

if ! command -v systemd-analyze >/dev/null; then
    echo "deploy/systemd: NOT CHECKED, systemd-analyze is not installed"
    exit 0
fi
units="$(mktemp -d)"
trap 'rm -rf "$units"' EXIT
for unit in systemd/*.service; do
    # A template is checked as one of its instances, and the program need not be installed here.
    name="$(basename "$unit" | sed 's/@\./@urgent./')"
    sed 's#^ExecStart=/opt/pushfan/bin/pushfan#ExecStart=/bin/true#' "$unit" >"$units/$name"
    status=0
    said="$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no --recursive-errors=no "$units/$name" 2>&1)" ||
        status=$?
    if [ "$status" -ne 0 ] || [ -n "$said" ]; then
        echo "deploy/$unit: systemd-analyze verify ended with $status"
        echo "$said" | sed "s#$units/##"
        exit 1
    fi
    echo "deploy/$unit: ok"
done
