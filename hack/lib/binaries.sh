# shellcheck shell=bash
# Gets binaries, in this order: the cache; the publisher's release, checksum verified; a build from Go
# modules, verified against the Go checksum database. What depends on the Kubernetes version has a
# folder of its own, so that clusters of several versions live side by side.
# A binary counts as there when its stamp .NAME@VERSION is: that is written last.

kubernetes_bin() { printf '%s/kubernetes/%s' "$CACHE" "$1"; }

have_binary() { [ -e "$1/.$2@$3" ]; }

# keep DIR NAME VERSION FILE: the file becomes the binary
keep_binary() {
  chmod 755 "$4"
  mv "$4" "$1/$2"
  rm -f "$1/.$2@"*
  touch "$1/.$2@$3"
}

# --- releases --------------------------------------------------------------------------------

# is a release site in reach? Asked once, with the smallest file it has
releases_in_reach() {
  if [ -z "${RELEASES:-}" ]; then
    RELEASES=no
    ! python3 -c 'import urllib.request; urllib.request.urlopen("https://dl.k8s.io/release/stable.txt", timeout=3)' \
      2> /dev/null || RELEASES=yes
    export RELEASES
    say "-- release downloads in reach: $RELEASES"
  fi
  [ "$RELEASES" = yes ]
}

# download DIR NAME VERSION URL CHECKSUM_URL [MEMBER]: MEMBER = its path in the archive that URL is.
# Leaves nothing behind where the site does not have it: a build is tried then
download() {
  releases_in_reach || return 0
  mkdir -p "$1"
  step "downloading $2 $3" fetch "$@"
}

fetch() {
  local dir=$1 name=$2 version=$3 url=$4 checksum=$5 member=${6:-} rc=0 new
  new=$(mktemp -d "$dir/.new-XXXXXX")
  python3 "$HACK/lib/fetch.py" "$url" "$checksum" "$new/file" || rc=$?
  if [ $rc -eq 0 ]; then
    if [ -n "$member" ]; then
      tar -xzf "$new/file" -C "$new" "$member"
      mv "$new/$member" "$new/file"
    fi
    keep_binary "$dir" "$name" "$version" "$new/file"
  fi
  rm -rf "$new"
  [ $rc -ne 1 ]   # 3: not there to be had
}

# --- builds ----------------------------------------------------------------------------------

# wrapper_module MODULE VERSION: prints the folder of a module of our own with the same requirements,
# because `go install PACKAGE@VERSION` refuses modules that have replace lines
wrapper_module() {
  local module=$1 version=$2 dir source new
  dir=$CACHE/mod/${module//\//_}@$version
  if [ ! -d "$dir" ]; then
    source=$(go mod download -json "$module@$version" | sed -nE 's/.*"GoMod": "(.*)",/\1/p')
    mkdir -p "$CACHE/mod"
    new=$(mktemp -d "$CACHE/mod/.new-XXXXXX")
    # Kubernetes' staging modules are published as v0.MINOR.PATCH of v1.MINOR.PATCH
    sed -E "s|^module .*|module wrapper|; s|=> \./staging/src/(\S+)|=> \1 v0.${version#*.}|; /=> \.\.?\//d" \
      "$source" > "$new/go.mod"
    (cd "$new" && go mod edit -require="$module@$version")
    mv "$new" "$dir"
  fi
  printf '%s' "$dir"
}

# build_missing DIR MODULE VERSION LDFLAGS TAGS NAME=PACKAGE...: those of the module's programs that are not there, all
# at once: what they share is compiled once, and they are linked side by side. A PACKAGE may be a file of our own
build_missing() {
  local dir=$1 version=$3 program missing=() names=()
  for program in "${@:6}"; do
    have_binary "$dir" "${program%%=*}" "$version" || missing+=("$program") names+=("${program%%=*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  need_go
  step "compiling ${names[*]} $version" go_build "${@:1:5}" "${missing[@]}"
}

go_build() {
  local dir=$1 module=$2 version=$3 ldflags=$4 tags=$5 programs=("${@:6}") wrapper new program output
  mkdir -p "$dir"
  wrapper=$(wrapper_module "$module" "$version")
  new=$(mktemp -d "$dir/.new-XXXXXX")
  output=$new/   # where several are built, each gets the name of its package's folder
  [ ${#programs[@]} -gt 1 ] || output=$new/${programs[0]%%=*}
  # compilers that neither collect garbage below 1 GiB nor write what -s -w takes out again need a quarter less time
  (cd "$wrapper" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local GOGC=off GOMEMLIMIT=1GiB \
    go build -trimpath -buildvcs=false -gcflags=all=-dwarf=false -tags "$tags" -ldflags "-s -w $ldflags" \
    -o "$output" "${programs[@]#*=}")
  for program in "${programs[@]%%=*}"; do keep_binary "$dir" "$program" "$version" "$new/$program"; done
  rmdir "$new"
}

# --- what is needed --------------------------------------------------------------------------

# kubernetes_binaries VERSION NAME...
kubernetes_binaries() {
  local version=$1 dir minor name url package=k8s.io/component-base/version programs=()
  dir=$(kubernetes_bin "$version")
  for name in "${@:2}"; do
    programs+=("$name=k8s.io/kubernetes/cmd/$name")
    url=https://dl.k8s.io/$version/bin/linux/$ARCH/$name
    have_binary "$dir" "$name" "$version" || download "$dir" "$name" "$version" "$url" "$url.sha256"
  done
  minor=${version#v1.}
  build_missing "$dir" k8s.io/kubernetes "$version" "-X $package.gitVersion=$version -X $package.gitMajor=1 \
    -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean" "" "${programs[@]}"
}

kind_binary() {
  local url=https://kind.sigs.k8s.io/dl/$KIND_VERSION/kind-linux-$ARCH
  ! have_binary "$BIN" kind "$KIND_VERSION" || return 0
  download "$BIN" kind "$KIND_VERSION" "$url" "$url.sha256sum"
  build_missing "$BIN" sigs.k8s.io/kind "$KIND_VERSION" "" "" kind=sigs.k8s.io/kind
}

helm_binary() {
  local url=https://get.helm.sh/helm-$HELM_VERSION-linux-$ARCH.tar.gz module=helm.sh/helm/v4
  ! have_binary "$BIN" helm "$HELM_VERSION" || return 0
  download "$BIN" helm "$HELM_VERSION" "$url" "$url.sha256sum" "linux-$ARCH/helm"
  build_missing "$BIN" $module "$HELM_VERSION" "-X $module/internal/version.version=$HELM_VERSION" "" \
    helm=$module/cmd/helm
}

# the version of a component that this Kubernetes' kubeadm names
component_version() {
  "$(kubernetes_bin "$2")/kubeadm" config images list --kubernetes-version "$2" 2> /dev/null |
    sed -nE "s|.*/$1:v?([^-]+).*|v\1|p"
}

# all that a node image of Kubernetes VERSION is made of
node_binaries() {
  local version=$1 dir name etcd=go.etcd.io/etcd/server/v3
  local cd=github.com/containerd/containerd/v2 cri=sigs.k8s.io/cri-tools cni=github.com/containernetworking/plugins
  dir=$(kubernetes_bin "$version")
  kubernetes_binaries "$version" \
    kubeadm kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy
  build_missing "$dir" $etcd "$(component_version etcd "$version")" "" "" etcd=$etcd
  build_missing "$dir" github.com/coredns/coredns "$(component_version coredns "$version")" "" "" \
    "coredns=$HACK/kind/coredns/main.go"
  build_missing "$BIN" $cd "$CONTAINERD_VERSION" "-X $cd/version.Version=$CONTAINERD_VERSION" \
    no_btrfs,no_devmapper,no_zfs containerd=$cd/cmd/containerd ctr=$cd/cmd/ctr \
    containerd-shim-runc-v2=$cd/cmd/containerd-shim-runc-v2
  build_missing "$BIN" $cri "$CRICTL_VERSION" "-X $cri/pkg/version.Version=$CRICTL_VERSION" "" crictl=$cri/cmd/crictl
  build_missing "$BIN" $cni "$CNI_VERSION" "" "" host-local=$cni/plugins/ipam/host-local \
    loopback=$cni/plugins/main/loopback ptp=$cni/plugins/main/ptp portmap=$cni/plugins/meta/portmap
  registry_binary
  own_binary pause
}

registry_binary() {
  build_missing "$BIN" github.com/distribution/distribution/v3 "$REGISTRY_VERSION" "" "" \
    "registry=$HACK/kind/registry/main.go"
}

# own_binary NAME: a program of one file under hack/kind
own_binary() {
  local key
  key=$(tree_key "kind/$1/main.go")
  ! have_binary "$BIN" "$1" "$key" || return 0
  need_go
  step "compiling $1" build_own "$1" "$key"
}

build_own() {
  CGO_ENABLED=0 GOTOOLCHAIN=local go build -trimpath -ldflags '-s -w' -o "$BIN/.$1.new" "$HACK/kind/$1/main.go"
  keep_binary "$BIN" "$1" "$2" "$BIN/.$1.new"
}
