#!/bin/sh
# Before the files go. An upgrade (deb: "upgrade"; rpm: 1 package left) keeps the
# service running on the old binary until the new one is in place.
set -e
case "$1" in
  remove | 0)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now trust-worker.service trust-worker-follow.service
    fi
    ;;
esac
