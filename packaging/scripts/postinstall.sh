#!/bin/sh
# After the files are in place, at the first installation and at each upgrade.
set -e
systemd-sysusers trust-worker.conf
systemd-tmpfiles --create trust-worker.conf
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart trust-worker.service
fi
# deb: "configure" without an old version; rpm: 1 package installed.
case "$1:$2" in
  configure: | 1:*)
    echo "Set storage.rootDirectory in /etc/trust-worker/config.yaml, then:"
    echo "  systemctl enable --now trust-worker"
    ;;
esac
