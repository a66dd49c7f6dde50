#!/usr/bin/env bash
# Builds the packages of the commit twice, in two directories with different names,
# user masks and time zones, and compares every byte. With FRESH=1 the second build
# compiles everything anew.
#
#   VERSION=1.2.3 packaging/reproducible.sh ARCH...
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
mkdir -p "$tmp/one" "$tmp/another/place"
git archive HEAD | tar -x -C "$tmp/one"
(umask 077 && git archive HEAD | tar -x -C "$tmp/another/place")
(TZ=UTC "$tmp/one/packaging/release.sh" "$tmp/out1" "$@")
(
  if [ "${FRESH:-}" = 1 ]; then export GOCACHE=$tmp/cache; fi
  umask 077
  TZ=Asia/Tokyo "$tmp/another/place/packaging/release.sh" "$tmp/out2" "$@"
)
diff -r "$tmp/out1" "$tmp/out2"
cat "$tmp/out1/SHA256SUMS"
echo 'the same bytes twice'
