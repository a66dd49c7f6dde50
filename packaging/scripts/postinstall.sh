#!/bin/sh
# After the files are in place, at the first installation and at each upgrade.
set -e
# Only a forced installation (rpm --nodeps) finds no systemd: the program is all it gets.
if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers trust-worker.conf
  # Where an image is built there may be no /proc: the unit makes the directory too.
  systemd-tmpfiles --create trust-worker.conf || true
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart trust-worker.service trust-worker-follow.service
fi
# deb: "configure" without an old version; rpm: 1 package installed.
case "$1:$2" in
  configure: | 1:*)
    echo "Set storage.rootDirectory in /etc/trust-worker/config.yaml, then:"
    echo "  systemctl enable --now trust-worker"
    ;;
esac
