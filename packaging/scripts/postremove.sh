#!/bin/sh
# After the files went. The user stays, since files may be its own. What is
# purged can be computed again; keys and certificates are in the registry's storage.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
if [ "$1" = purge ]; then
  rm -rf /var/lib/trust-worker /var/lib/trust-replica
fi
