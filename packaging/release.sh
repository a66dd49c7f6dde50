#!/usr/bin/env bash
# Builds, for each architecture, the static program, its deb, rpm and archive,
# and its bill of materials, and the hashes of all of them.
#
#   VERSION=1.2.3 packaging/release.sh OUT amd64 arm64
#
# The same source, Go, VERSION, MAINTAINER and SOURCE_DATE_EPOCH give the same bytes,
# in whatever directory and on whatever machine: `make reproducible` holds it to that.
# OUT is made anew. SOURCE_DATE_EPOCH is the commit's time unless set. MAINTAINER is
# who answers for the deb and the rpm, as "Name <address>": the project has no address.
set -euo pipefail
out=${1:?usage: packaging/release.sh OUT ARCH...}
shift
cd "$(dirname "$0")/.."
: "${GO:=go}" "${VERSION:?}" "${MAINTAINER:=The trust-worker project}"
: "${NFPM:=$GO run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.1}"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export LC_ALL=C TZ=UTC CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local
umask 022

# Packages' versions begin with a digit: a commit without a tag is before all that have one.
case $VERSION in
  v[0-9]*) number=${VERSION#v} ;;
  [0-9]*.*) number=$VERSION ;;
  *) number=0.0.0+$VERSION ;;
esac
# 1.2.3-4-gabc is after 1.2.3, 1.2.3-rc1 before it.
number=$(sed -E 's/-([0-9]+)-g/+\1.g/; s/-/~/g' <<<"$number")

rm -rf "$out"
mkdir -p "$out/share/man" "$out/share/completions"
out=$(cd "$out" && pwd)

build() { # build ARCH FILE. The version says the commit; buildvcs would say whether a file lies about.
  GOOS=linux GOARCH=$1 $GO build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" -o "$2" ./cmd/trust-worker
}

# The manual and the completions are written by the program itself.
host=$out/$($GO env GOHOSTARCH)/trust-worker
build "$($GO env GOHOSTARCH)" "$host"
"$host" man "$out/share/man"
for shell in bash zsh fish; do
  "$host" completion $shell >"$out/share/completions/$shell"
done

for arch in "$@"; do
  [ -e "$out/$arch/trust-worker" ] || build "$arch" "$out/$arch/trust-worker"
  name=trust-worker-$number-linux-$arch
  $GO run ./packaging/sbom "$VERSION" "$out/$arch/trust-worker" >"$out/$name.cdx.json"

  mkdir -p "$out/$name"
  cp -r "$out/$arch/trust-worker" "$out/share/man" "$out/share/completions" LICENSE README.md CHANGELOG.md docs \
    packaging/config.yaml packaging/systemd packaging/monitoring packaging/docker packaging/kubernetes "$out/$name/"
  chmod -R u=rwX,go=rX "$out/$name" # whatever the checkout's umask was
  tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
  rm -r "${out:?}/$name"
done

gzip -9n "$out"/share/man/*.1
for arch in "$@"; do
  for format in deb rpm; do
    ARCH=$arch VERSION=$number OUT=$out MAINTAINER=$MAINTAINER GOFLAGS='' $NFPM package --config packaging/nfpm.yaml --packager $format --target "$out/" >&2
  done
done

rm -rf "${out:?}/share"
for arch in "$@"; do
  rm -r "${out:?}/$arch"
done
rm -rf "$(dirname "$host")"
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out" >&2
